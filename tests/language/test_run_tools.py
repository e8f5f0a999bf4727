"""Functions that are called as the model asks, until it answers."""

from __future__ import annotations

import asyncio
import enum
from typing import Any

import pytest
from language.conftest import CHAT_MODEL
from language.test_native import TOOL

from cyllama import LLM
from cyllama.errors import CancelledError
from cyllama.llama.answers import ChatCompletion
from cyllama.llama.plain_text import ControlTexts
from cyllama.llama.tools import next_request

QUESTION = "What is the weather in Rome?"


class City(enum.Enum):
    ROME = "Rome"


def requests_of(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the model is asked, from now on."""
    seen: list[Any] = []
    real = llm._json

    def noting(route: str, body: Any, *more: Any) -> Any:
        seen.append(body)
        return real(route, body, *more)

    monkeypatch.setattr(llm, "_json", noting)
    return seen


def test_a_required_tool_is_called_and_the_model_answers(tool_llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[City] = []

    def weather(city: City) -> str:
        """Tell the weather."""
        calls.append(city)
        return "sunny <|im_end|>"

    def unused() -> None:
        """Do nothing."""

    bodies = requests_of(tool_llm, monkeypatch)
    for choice in ("required", weather):
        bodies.clear()
        calls.clear()
        answer = tool_llm.chat(
            QUESTION, tools=[weather, unused], tool_choice=choice, run_tools=True, temperature=0, max_tokens=150,
            max_rounds=2,
        )  # fmt: skip
        assert len(bodies) == 2 and calls and set(calls) == {City.ROME}
        assert bodies[0]["tool_choice"] == "required" and bodies[1]["tool_choice"] == "auto"
        assert [tool["function"]["name"] for tool in bodies[1]["tools"]] == ["weather", "unused"]
        said, *results = bodies[1]["messages"][1:]  # a result for each call
        assert [call["id"] for call in said["tool_calls"]] == [result["tool_call_id"] for result in results]
        for result in results:
            assert result["role"] == "tool"
            assert result["content"].startswith("sunny ") and "<|im_end|>" not in result["content"]
        assert answer.finish_reason in ("stop", "length", "tool_calls")


def test_one_call_or_several(tool_llm: LLM) -> None:
    """The model makes several calls here, where it may."""

    def weather(city: City) -> str:
        """Tell the weather."""
        return "sunny"

    given: dict[str, Any] = {"tools": [weather], "tool_choice": "required", "temperature": 0, "max_tokens": 150}
    assert len(tool_llm.chat(QUESTION, parallel_tool_calls=True, **given).tool_calls) > 1
    one = tool_llm.chat(QUESTION, parallel_tool_calls=False, **given)
    assert len(one.tool_calls) == 1 and one.finish_reason == "tool_calls"


def test_the_last_round_calls_nothing(tool_llm: LLM) -> None:
    calls: list[int] = []

    def weather(city: City) -> str:
        calls.append(1)
        return "sunny"

    answer = tool_llm.chat(
        QUESTION, tools=[weather], tool_choice="required", run_tools=True, temperature=0, max_tokens=150,
        max_rounds=1,
    )  # fmt: skip
    assert answer.finish_reason == "tool_calls" and not calls
    with pytest.raises(ValueError, match="max_rounds is 0"):
        tool_llm.chat(QUESTION, tools=[weather], run_tools=True, max_rounds=0)


def test_tools_that_are_no_functions_are_the_callers(tool_llm: LLM) -> None:
    answer = tool_llm.chat(
        QUESTION,
        tools=[TOOL],
        tool_choice="required",
        run_tools=True,
        temperature=0,
        max_tokens=150,
    )
    assert answer.finish_reason == "tool_calls" and answer.tool_calls[0].function.name == "get_weather"


def test_a_call_that_is_cut_off_is_not_made(tool_llm: LLM) -> None:
    def weather(city: City) -> str:
        raise KeyboardInterrupt

    answer = tool_llm.chat(
        QUESTION, tools=[weather], tool_choice="required", run_tools=True, temperature=0, max_tokens=6
    )
    assert answer.finish_reason == "length"


def test_failures_are_told_to_the_model() -> None:
    def weather(city: City) -> str:
        raise OSError("no network")

    calls = [
        {"id": str(i), "type": "function", "function": {"name": name, "arguments": arguments}}
        for i, (name, arguments) in enumerate(
            [("weather", '{"city": "Rome"}'), ("weather", '{"city": "Oz"}'), ("nothing", "{}"), ("weather", "[1")]
        )
    ]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    answer = ChatCompletion({"choices": [{"message": message, "finish_reason": "tool_calls"}]})
    body = next_request({"messages": []}, answer, [weather], ControlTexts([]))
    assert body is not None
    texts = [said["content"] for said in body["messages"][1:]]
    assert "no network" in texts[0] and "Oz" in texts[1] and "there is no tool" in texts[2] and "JSON" in texts[3]
    assert [said["tool_call_id"] for said in body["messages"][1:]] == ["0", "1", "2", "3"]


def test_what_stops_the_program_is_no_failure_of_a_tool(tool_llm: LLM) -> None:
    def weather(city: City) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tool_llm.chat(
            QUESTION,
            tools=[weather],
            tool_choice="required",
            run_tools=True,
            temperature=0,
            max_tokens=150,
        )


def test_tools_of_an_event_loop(tool_llm: LLM) -> None:
    """Coroutine functions run in the loop that waits for the answer."""
    loops = []

    async def weather(city: City) -> str:
        """Tell the weather."""
        await asyncio.sleep(0)
        loops.append(asyncio.get_running_loop())
        return "sunny"

    async def talk() -> None:
        await tool_llm.achat(
            QUESTION, tools=[weather], tool_choice="required", run_tools=True, temperature=0, max_tokens=150,
            max_rounds=2,
        )  # fmt: skip
        assert loops and set(loops) == {asyncio.get_running_loop()}

    asyncio.run(talk())


def test_cancelling_in_a_tool(tool_llm: LLM) -> None:
    import threading

    stop = threading.Event()

    def weather(city: City) -> str:
        stop.set()
        return "sunny"

    with pytest.raises(CancelledError):
        tool_llm.chat(
            QUESTION,
            tools=[weather],
            tool_choice="required",
            run_tools=True,
            temperature=0,
            max_tokens=150,
            cancel=stop,
        )


def test_a_model_without_tools_says_so() -> None:
    with LLM(CHAT_MODEL, n_ctx=256) as llm, pytest.raises(Exception, match="knows no tools"):
        llm.chat(QUESTION, tools=[TOOL], run_tools=True)
