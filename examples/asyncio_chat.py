"""Stream two responses at once with asyncio."""

import asyncio

from cyllama import LLM


async def find_capital(llm: LLM, country: str) -> str:
    """Return the text of one streamed response."""
    prompt = f"What is the capital of {country}? Answer with one word."
    stream = await llm.achat(prompt, stream=True, max_tokens=24, temperature=0)
    return "".join([chunk.text async for chunk in stream])


async def main() -> None:
    """Send two requests."""
    with LLM("smollm2-135m-instruct", n_ctx=2048, n_parallel=2) as llm:
        print(await asyncio.gather(find_capital(llm, "France"), find_capital(llm, "Italy")))


asyncio.run(main())
