"""Records: items and attributes are the same, nothing can be changed, plain data comes out."""

from __future__ import annotations

import copy
import json
import pickle

import pytest

from cyllama.llama.answers import ChatCompletion, Completion, Events, Record

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


def test_items_and_attributes() -> None:
    found = ChatCompletion(CHAT)
    assert found["usage"]["prompt_tokens"] == found.usage.prompt_tokens == 3
    assert found.choices[0].message.role == "assistant"
    assert found.text == str(found) == "" and found.reasoning == "hm" and found.finish_reason == "tool_calls"
    assert found.tool_calls[0].function.name == "f"
    assert set(found) == {"choices", "usage"} and len(found) == 2 and "usage" in found and "usage" in dir(found)


def test_nothing_can_be_changed() -> None:
    found = ChatCompletion(CHAT)
    with pytest.raises(AttributeError, match="cannot be changed"):
        found.usage = 1  # type: ignore[misc]
    found.to_dict()["usage"]["prompt_tokens"] = 9
    assert found.usage.prompt_tokens == 3
    assert copy.deepcopy(found) == found == pickle.loads(pickle.dumps(found))
    assert found.parsed is None and found.parsed_choices == [None]
    assert pickle.loads(pickle.dumps(ChatCompletion(CHAT, [3]))).parsed == 3
    assert json.loads(found.to_json()) == CHAT


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match="did you mean 'usage'"):
        _ = Completion({"usage": {}}).usge
    assert not hasattr(Record({}), "anything")


def test_events_cut_anywhere() -> None:
    whole = b'data: {"a": "\xc3\xa4"}\n\n:\n\ndata: {"a": 2}\n\ndata: [DONE]\n\n'
    for size in (1, 2, 7, len(whole)):
        events = Events()
        found = [event for i in range(0, len(whole), size) for event in events.feed(whole[i : i + size])]
        assert [event["a"] for event in found] == ["ä", 2]
