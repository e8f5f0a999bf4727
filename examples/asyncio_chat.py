"""The same with asyncio: answers come in parts, and side by side."""

import asyncio

from cyllama import LLM


async def ask(llm: LLM, country: str) -> str:
    """Collect the parts of one answer."""
    question = f"What is the capital of {country}? Answer with one word."
    stream = await llm.achat(question, stream=True, max_tokens=24, temperature=0)
    return "".join([part.text async for part in stream])


async def main() -> None:
    """Ask twice at once."""
    with LLM("smollm2-135m-instruct", n_ctx=2048, n_parallel=2) as llm:
        print(await asyncio.gather(ask(llm, "France"), ask(llm, "Italy")))


asyncio.run(main())
