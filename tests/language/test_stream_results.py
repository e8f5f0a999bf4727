"""The result of a stream is the response of the call without a stream."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from language.conftest import CHAT_MODEL
from language.test_native import TOOL
from language.test_run_tools import QUESTION, City

from cyllama import LLM
from cyllama.errors import CancelledError, ClosedError
from cyllama.llama.responses import ChatCompletion
from cyllama.llama.streaming import Stream

SCHEMA = {"type": "object", "properties": {"name": {"enum": ["a", "b"]}}, "required": ["name"]}
# Cached values were computed in other batches and differ in the last bits.
GREEDY = {"temperature": 0, "max_tokens": 150, "cache_prompt": False}


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    """Each slot has its own cache: positions in a shared one, and thus the last bits, depend on the other slots."""
    with LLM(CHAT_MODEL, n_ctx=4096, n_parallel=4, options={"no-kv-unified": True}) as model:
        yield model


def comparable(response: Any) -> dict[str, Any]:
    """Return a response without the fields that differ between calls."""
    data = response.to_dict()
    for name in ("id", "created", "timings"):
        assert data.pop(name)
    del data["usage"]["prompt_tokens_details"]
    for choice in data["choices"]:
        if "logprobs" in choice and choice["logprobs"]["content"][-1]["bytes"] == []:
            del choice["logprobs"]["content"][-1]  # of the token that ends the text: streams lack it
        for call in choice.get("message", {}).get("tool_calls", ()):
            assert call.pop("id")
    return dict(data)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"n": 2},
        {"logprobs": True, "top_logprobs": 2},
        {"stop": [" "]},
        {"response_format": SCHEMA},
        {"response_format": SCHEMA, "n": 2},
        {"stream_options": {"include_usage": True}},
    ],
    ids=str,
)
def test_chat_result_matches_response(llm: LLM, fields: dict[str, Any]) -> None:
    given = {**GREEDY, "max_tokens": 24, **fields}
    whole = llm.chat("Name one.", **given)
    found = llm.chat("Name one.", stream=True, **given).result()
    assert type(found) is ChatCompletion
    assert comparable(found) == comparable(whole)
    assert found.parsed_choices == whole.parsed_choices and len(found.parsed_choices) == fields.get("n", 1)
    if "response_format" in fields:
        assert all(value["name"] in ("a", "b") for value in found.parsed_choices)
    else:
        assert found.parsed is None


def test_completion_result_matches_response(llm: LLM) -> None:
    given: dict[str, Any] = {**GREEDY, "max_tokens": 8, "logprobs": 1, "n": 2}
    found = llm.complete("One, two,", stream=True, **given).result()
    assert comparable(found) == comparable(llm.complete("One, two,", **given))


def test_tool_call_result_matches_response(tool_llm: LLM) -> None:
    given: dict[str, Any] = {"tools": [TOOL], "tool_choice": "required", **GREEDY}
    whole = tool_llm.chat(QUESTION, parallel_tool_calls=True, **given)
    found = tool_llm.chat(QUESTION, parallel_tool_calls=True, stream=True, **given).result()
    assert len(found.tool_calls) > 1 and comparable(found) == comparable(whole)


def test_result_includes_read_chunks(llm: LLM) -> None:
    stream = llm.chat("Count to five.", temperature=0, max_tokens=12, stream=True)
    parts = [next(stream).text for _ in range(4)]
    found = stream.result()
    assert found.text.startswith("".join(parts)) and found.usage.completion_tokens == 12
    assert stream.result() == found
    assert list(stream) == []


def test_closed_stream_has_no_result(llm: LLM) -> None:
    stream = llm.chat("Count to five.", max_tokens=64, stream=True)
    next(stream)
    stream.close()
    with pytest.raises(ClosedError, match="before the response ended"):
        stream.result()


def weather_calls(calls: list[City]) -> Any:
    def weather(city: City) -> str:
        """Tell the weather."""
        calls.append(city)
        return "sunny"

    return weather


def test_runs_tools_between_responses(tool_llm: LLM) -> None:
    """The stream has the chunks of each response; its result is the last one."""
    given: dict[str, Any] = {"tool_choice": "required", "parallel_tool_calls": False, "run_tools": True, **GREEDY}
    there: list[City] = []
    whole = tool_llm.chat(QUESTION, tools=[weather_calls(there)], max_rounds=2, **given)
    here: list[City] = []
    stream = tool_llm.chat(QUESTION, tools=[weather_calls(here)], max_rounds=2, stream=True, **given)
    ends = [(part["id"], part.finish_reason) for part in stream if part.finish_reason]
    assert [reason for _, reason in ends] == ["tool_calls", whole.finish_reason] and ends[0][0] != ends[1][0]
    assert here == there and here
    assert comparable(stream.result()) == comparable(whole)


def test_last_round_calls_nothing(tool_llm: LLM) -> None:
    calls: list[City] = []
    stream: Stream[Any, Any] = tool_llm.chat(
        QUESTION, tools=[weather_calls(calls)], tool_choice="required", run_tools=True, temperature=0, max_tokens=150,
        max_rounds=1, parallel_tool_calls=False, stream=True,
    )  # fmt: skip
    assert stream.result().finish_reason == "tool_calls" and not calls


@pytest.mark.parametrize("how", ["close", "cancel", "raise"])
def test_tool_may_end_the_stream(tool_llm: LLM, how: str) -> None:
    stop = threading.Event()
    streams: list[Stream[Any, Any]] = []

    def weather(city: City) -> str:
        """Tell the weather."""
        if how == "close":
            streams[0].close()
        elif how == "cancel":
            stop.set()
        else:
            raise KeyboardInterrupt
        return "sunny"

    given: dict[str, Any] = {"tools": [weather], "tool_choice": "required", "parallel_tool_calls": False}
    given |= {"temperature": 0, "max_tokens": 150}
    streams.append(tool_llm.chat(QUESTION, run_tools=True, stream=True, cancel=stop, **given))
    if how == "close":
        assert [part.finish_reason for part in streams[0]][-1] == "tool_calls"
    else:
        with pytest.raises(KeyboardInterrupt if how == "raise" else CancelledError):
            list(streams[0])
    assert list(streams[0]) == []
    assert not any(slot.is_processing for slot in tool_llm.metrics)


def test_runs_coroutine_tools(tool_llm: LLM) -> None:
    """They run in the event loop that reads the stream."""
    loops = []

    async def weather(city: City) -> str:
        """Tell the weather."""
        await asyncio.sleep(0)
        loops.append(asyncio.get_running_loop())
        return "sunny"

    async def talk() -> None:
        stream = await tool_llm.achat(
            QUESTION, tools=[weather], tool_choice="required", run_tools=True, temperature=0, max_tokens=150,
            max_rounds=2, parallel_tool_calls=False, stream=True,
        )  # fmt: skip
        async with stream:
            await anext(stream)
            found = await stream.result()
        assert type(found) is ChatCompletion and found.usage.completion_tokens
        assert loops and set(loops) == {asyncio.get_running_loop()}

    asyncio.run(talk())


def test_continued_message_is_echoed_on_request(llm: LLM) -> None:
    messages: Any = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "I am"}]
    fields: Any = {"temperature": 0, "max_tokens": 6}
    plain = llm.chat(messages, **fields).text
    assert plain and not plain.startswith("I am")
    assert llm.chat(messages, stream=True, **fields).result().text == plain
    for stream in (False, True):
        found: Any = llm.chat(messages, echo=True, stream=stream, **fields)
        assert (found.result() if stream else found).text == "I am" + plain
