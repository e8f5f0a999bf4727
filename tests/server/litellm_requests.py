"""Requests of litellm, in a process of its own: it leaves event loops and connections open.

Arguments: the URL of the server and a key. Prints the responses as JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import litellm

litellm.suppress_debug_info = True
litellm.telemetry = False
QUESTION: Any = [{"role": "user", "content": "How is the weather in Rome?"}]
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}


def responses(url: str, key: str) -> dict[str, Any]:
    """Send the requests and return the responses by name."""
    openai: dict[str, Any] = {"api_base": f"{url}/v1", "api_key": key}
    brief = {"messages": QUESTION, "max_tokens": 8, "temperature": 0, **openai}
    chunks = list(litellm.completion(model="openai/plain", stream=True, **brief))
    tool = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}
    called = litellm.completion(
        model="anthropic/tools", messages=QUESTION, api_base=url, api_key=key, max_tokens=100, tools=[tool],
        tool_choice={"type": "function", "function": {"name": "weather"}}, parallel_tool_calls=False, temperature=0,
    )  # fmt: skip
    return {
        "chat": litellm.completion(model="openai/plain", **brief).model_dump(),
        "stream": litellm.stream_chunk_builder(chunks).model_dump(),
        "messages": called.model_dump(),
        "embedding": litellm.embedding(
            model="openai/minilm", input=["a cat"], encoding_format=None, **openai
        ).model_dump(),
    }


if __name__ == "__main__":
    found = responses(*sys.argv[1:])
    print("\n" + json.dumps(found, default=str))
