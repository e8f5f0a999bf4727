"""The types of the official client accept every response and chunk."""

from __future__ import annotations

from typing import Any

import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from cyllama.llama.llm import LLM

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]},
    },
}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "logprobs": {"logprobs": True, "top_logprobs": 2},
    "schema": {"response_format": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}},
    "cut": {"max_tokens": 3},
    "stop": {"stop": ["a"]},
    "tool": {"tools": [TOOL], "tool_choice": "required"},
}


@pytest.mark.parametrize("name", [*CASES, "several"])
def test_chats_have_official_types(tool_llm: LLM, name: str) -> None:
    fields = {"n": 2, "temperature": 1.0} if name == "several" else CASES[name]
    response = tool_llm.chat("What is 2 + 3?", **{"max_tokens": 90, "temperature": 0, **fields})
    found = ChatCompletion.model_validate(response.to_dict(), strict=True)
    assert found.usage is not None and found.usage.total_tokens == response.usage.total_tokens
    assert found.choices[0].finish_reason == response.finish_reason


@pytest.mark.parametrize("name", CASES)
def test_official_accumulator_joins_streams(tool_llm: LLM, name: str) -> None:
    options = {"max_tokens": 90, "temperature": 0, **CASES[name]}
    whole = ChatCompletion.model_validate(tool_llm.chat("What is 2 + 3?", **options).to_dict())
    state = ChatCompletionStreamState()
    ids = set()
    usage = {"stream": True, "stream_options": {"include_usage": True}}
    for part in tool_llm.chat("What is 2 + 3?", **options, **usage):
        chunk = ChatCompletionChunk.model_validate(part.to_dict(), strict=True)
        ids.add(chunk.id)
        state.handle_chunk(chunk)
    found = state.current_completion_snapshot
    assert len(ids) == 1
    message, expected = found.choices[0].message, whole.choices[0].message
    assert (message.role, message.content or "") == (expected.role, expected.content or "")
    assert [call.function.arguments for call in message.tool_calls or ()] == [
        call.function.arguments
        for call in expected.tool_calls or ()  # type: ignore[union-attr]
    ]
    assert found.choices[0].finish_reason == whole.choices[0].finish_reason
    assert found.usage is not None and whole.usage is not None
    assert found.usage.completion_tokens == whole.usage.completion_tokens


def test_completions_have_official_types(llm: LLM) -> None:
    response = llm.complete("Once upon", max_tokens=8, temperature=0, logprobs=2)
    Completion.model_validate(response.to_dict(), strict=True)


def test_completion_chunks_have_official_types(llm: LLM) -> None:
    """Only the last chunk has a finish reason, as in OpenAI's API; the client's type requires one in each."""
    parts = list(llm.complete("Once upon", max_tokens=8, temperature=0, stream=True))
    for part in parts:
        data = part.to_dict()
        reasons = [choice["finish_reason"] for choice in data["choices"]]
        assert all(reason is None for reason in reasons) or part is parts[-1] or reasons == ["length"]
        Completion.model_validate({**data, "choices": [{**c, "finish_reason": "stop"} for c in data["choices"]]})
