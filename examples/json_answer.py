"""Have an answer as an object: nothing else than what fits the class can come out."""

from dataclasses import dataclass

from cyllama import LLM


@dataclass
class City:
    """What is asked for."""

    name: str
    country: str


with LLM("smollm2-135m-instruct", n_ctx=1024) as llm:
    answer = llm.chat("Which city is the capital of France?", response_format=City, max_tokens=64, temperature=0)
    print(answer.parsed)
