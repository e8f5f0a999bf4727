"""Constrain a response to a JSON schema, and parse it into a dataclass."""

from dataclasses import dataclass

from cyllama import LLM


@dataclass
class City:
    """The type of the response."""

    name: str
    country: str


with LLM("smollm2-135m-instruct", n_ctx=1024) as llm:
    response = llm.chat("Which city is the capital of France?", response_format=City, max_tokens=64, temperature=0)
    print(response.parsed)
