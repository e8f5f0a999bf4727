"""Records: attributes and items, immutability, missing fields, representations."""

from __future__ import annotations

import copy
import json
import pickle

import pytest

from cyllama.llama.responses import ChatCompletion, Completion, Record, ToolCall, Usage
from cyllama.llama.streaming import EventParser

CHAT = {
    "choices": [
        {
            "finish_reason": "tool_calls",
            "message": {
                "role": "assistant",
                "content": None,
                "reasoning_content": "hm",
                "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
        }
    ],
    "usage": {"prompt_tokens": 3},
}


def test_attributes_are_items() -> None:
    found = ChatCompletion(CHAT)
    assert found["usage"]["prompt_tokens"] == found.usage.prompt_tokens == 3
    assert found.choices[0].message.role == "assistant"
    assert found.text == str(found) == "" and found.reasoning == "hm" and found.finish_reason == "tool_calls"
    assert found.tool_calls[0].function.name == "f"
    assert set(found) == {"choices", "usage"} and len(found) == 2 and "usage" in found and "usage" in dir(found)


def test_is_read_only() -> None:
    found = ChatCompletion(CHAT)
    with pytest.raises(AttributeError, match="read-only"):
        found.usage = 1  # type: ignore[misc]
    found.to_dict()["usage"]["prompt_tokens"] = 9
    assert found.usage.prompt_tokens == 3
    assert copy.deepcopy(found) == found == pickle.loads(pickle.dumps(found))
    assert found.parsed is None and found.parsed_choices == [None]
    assert pickle.loads(pickle.dumps(ChatCompletion(CHAT, [3]))).parsed == 3
    assert json.loads(found.to_json()) == CHAT


def test_missing_fields_are_none() -> None:
    """As in the types of the package openai; a name that no response has is an AttributeError."""
    found = ChatCompletion(CHAT)
    assert found.timings is None and found.system_fingerprint is None and found.usage.total_tokens is None
    assert found.choices[0].logprobs is None and found.message.refusal is None
    assert type(found.usage) is Usage and type(found.choices[0].message.tool_calls[0]) is ToolCall
    with pytest.raises(KeyError):
        _ = found["timings"]
    with pytest.raises(AttributeError, match="'usage'"):
        _ = Completion({"usage": {}}).usge
    assert not hasattr(Record({}), "anything") and not hasattr(found, "_repr_html_")


def test_repr_is_short() -> None:
    text = "word " * 1000
    data = {"choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}]}
    found = ChatCompletion({**data, "id": "a", "model": "b" * 1000})
    assert repr(found).startswith("ChatCompletion(text='word word") and "finish_reason='stop'" in repr(found)
    assert repr(ChatCompletion(CHAT)) == "ChatCompletion(tool_calls=['f'], finish_reason='tool_calls')"
    assert str(found) == text
    for value in (found, found.message, Record({str(i): text for i in range(100)})):
        assert len(repr(value)) < 400


def test_markdown_of_a_chat() -> None:
    assert ChatCompletion(CHAT)._repr_markdown_() == "> hm\n\n`f({})`"


def test_parses_events_split_anywhere() -> None:
    whole = b'data: {"a": "\xc3\xa4"}\n\n:\n\ndata: {"a": 2}\n\ndata: [DONE]\n\n'
    for size in (1, 2, 7, len(whole)):
        events = EventParser()
        found = [event for i in range(0, len(whole), size) for event in events.feed(whole[i : i + size])]
        assert [event["a"] for event in found] == ["ä", 2]
