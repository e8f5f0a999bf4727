"""The whole answer of a stream is the one that the call without a stream gives."""

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
from cyllama.llama.answers import ChatCompletion
from cyllama.llama.streams import Stream

SCHEMA = {"type": "object", "properties": {"name": {"enum": ["a", "b"]}}, "required": ["name"]}
# What is taken from the cache was computed in other batches, and differs in the last bits.
GREEDY = {"temperature": 0, "max_tokens": 150, "cache_prompt": False}


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    """Each slot has its own cache: in a shared one the place, and with it the last bits, depend on its neighbours."""
    with LLM(CHAT_MODEL, n_ctx=4096, n_parallel=4, options={"no-kv-unified": True}) as model:
        yield model


def comparable(answer: Any) -> dict[str, Any]:
    """What two runs have in common: not when, under which name, in which time, or with what from the cache."""
    data = answer.to_dict()
    for name in ("id", "created", "timings"):
        assert data.pop(name)
    del data["usage"]["prompt_tokens_details"]
    for choice in data["choices"]:
        if "logprobs" in choice and choice["logprobs"]["content"][-1]["bytes"] == []:
            del choice["logprobs"]["content"][-1]  # of the token that ends the answer: streams do not tell it
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
def test_chats(llm: LLM, fields: dict[str, Any]) -> None:
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


def test_texts(llm: LLM) -> None:
    given: dict[str, Any] = {**GREEDY, "max_tokens": 8, "logprobs": 1, "n": 2}
    found = llm.complete("One, two,", stream=True, **given).result()
    assert comparable(found) == comparable(llm.complete("One, two,", **given))


def test_calls_of_tools(tool_llm: LLM) -> None:
    given: dict[str, Any] = {"tools": [TOOL], "tool_choice": "required", **GREEDY}
    whole = tool_llm.chat(QUESTION, parallel_tool_calls=True, **given)
    found = tool_llm.chat(QUESTION, parallel_tool_calls=True, stream=True, **given).result()
    assert len(found.tool_calls) > 1 and comparable(found) == comparable(whole)


def test_what_was_read_before_belongs_to_it(llm: LLM) -> None:
    stream = llm.chat("Count to five.", temperature=0, max_tokens=12, stream=True)
    parts = [next(stream).text for _ in range(4)]
    found = stream.result()
    assert found.text.startswith("".join(parts)) and found.usage.completion_tokens == 12
    assert stream.result() == found, "it can be asked for again"
    assert list(stream) == []


def test_a_stream_that_was_closed_has_none(llm: LLM) -> None:
    stream = llm.chat("Count to five.", max_tokens=64, stream=True)
    next(stream)
    stream.close()
    with pytest.raises(ClosedError, match="before the answer ended"):
        stream.result()


def weather_calls(calls: list[City]) -> Any:
    def weather(city: City) -> str:
        """Tell the weather."""
        calls.append(city)
        return "sunny"

    return weather


def test_functions_are_called_between_the_answers(tool_llm: LLM) -> None:
    """As without a stream: the parts of each answer come, and the result is the last one."""
    given: dict[str, Any] = {"tool_choice": "required", "run_tools": True, **GREEDY}
    there: list[City] = []
    whole = tool_llm.chat(QUESTION, tools=[weather_calls(there)], max_rounds=2, **given)
    here: list[City] = []
    stream = tool_llm.chat(QUESTION, tools=[weather_calls(here)], max_rounds=2, stream=True, **given)
    ends = [(part["id"], part.finish_reason) for part in stream if part.finish_reason]
    assert [reason for _, reason in ends] == ["tool_calls", whole.finish_reason] and ends[0][0] != ends[1][0]
    assert here == there and here
    assert comparable(stream.result()) == comparable(whole)


def test_the_last_round_calls_nothing(tool_llm: LLM) -> None:
    calls: list[City] = []
    stream: Stream[Any] = tool_llm.chat(
        QUESTION, tools=[weather_calls(calls)], tool_choice="required", run_tools=True, temperature=0, max_tokens=150,
        max_rounds=1, stream=True,
    )  # fmt: skip
    assert stream.result().finish_reason == "tool_calls" and not calls


@pytest.mark.parametrize("how", ["close", "cancel", "raise"])
def test_ending_it_in_a_function(tool_llm: LLM, how: str) -> None:
    stop = threading.Event()
    streams: list[Stream[Any]] = []

    def weather(city: City) -> str:
        """Tell the weather."""
        if how == "close":
            streams[0].close()
        elif how == "cancel":
            stop.set()
        else:
            raise KeyboardInterrupt
        return "sunny"

    given: dict[str, Any] = {"tools": [weather], "tool_choice": "required", "temperature": 0, "max_tokens": 150}
    streams.append(tool_llm.chat(QUESTION, run_tools=True, stream=True, cancel=stop, **given))
    if how == "close":
        assert [part.finish_reason for part in streams[0]][-1] == "tool_calls"
    else:
        with pytest.raises(KeyboardInterrupt if how == "raise" else CancelledError):
            list(streams[0])
    assert list(streams[0]) == []
    assert not any(slot.is_processing for slot in tool_llm.metrics), "the slot is free"


def test_coroutines(tool_llm: LLM) -> None:
    """Of an event loop: the functions run in it, and the result is awaited."""
    loops = []

    async def weather(city: City) -> str:
        """Tell the weather."""
        await asyncio.sleep(0)
        loops.append(asyncio.get_running_loop())
        return "sunny"

    async def talk() -> None:
        stream = await tool_llm.achat(
            QUESTION, tools=[weather], tool_choice="required", run_tools=True, temperature=0, max_tokens=150,
            max_rounds=2, stream=True,
        )  # fmt: skip
        async with stream:
            await anext(stream)
            found = await stream.result()
        assert type(found) is ChatCompletion and found.usage.completion_tokens
        assert loops and set(loops) == {asyncio.get_running_loop()}

    asyncio.run(talk())
