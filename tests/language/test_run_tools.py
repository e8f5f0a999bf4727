"""Functions are called until the model responds."""

from __future__ import annotations

import asyncio
import enum
from typing import Any

import pytest
from language.conftest import CHAT_MODEL
from language.test_native import TOOL

from cyllama import LLM
from cyllama.errors import CancelledError, UnsupportedError
from cyllama.llama._special_tokens import ControlTexts
from cyllama.llama.responses import ChatCompletion
from cyllama.llama.tools import next_request

QUESTION = "What is the weather in Rome?"


class City(enum.Enum):
    ROME = "Rome"


def requests_of(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return a list to which the bodies of later requests are appended."""
    seen: list[Any] = []
    real = llm._json

    def record(route: str, body: Any, *more: Any) -> Any:
        seen.append(body)
        return real(route, body, *more)

    monkeypatch.setattr(llm, "_json", record)
    return seen


def test_calls_required_tool_then_responds(tool_llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
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
        response = tool_llm.chat(
            QUESTION, tools=[weather, unused], tool_choice=choice, run_tools=True, temperature=0, max_tokens=150,
            max_rounds=2,
        )  # fmt: skip
        assert len(bodies) == 2 and calls and set(calls) == {City.ROME}
        assert bodies[0]["tool_choice"] == "required" and bodies[1]["tool_choice"] == "auto"
        assert [tool["function"]["name"] for tool in bodies[1]["tools"]] == ["weather", "unused"]
        reply, *results = bodies[1]["messages"][1:]  # a result for each call
        assert [call["id"] for call in reply["tool_calls"]] == [result["tool_call_id"] for result in results]
        for result in results:
            assert result["role"] == "tool"
            assert result["content"].startswith("sunny ") and "<|im_end|>" not in result["content"]
        assert response.finish_reason in ("stop", "length", "tool_calls")


def test_runs_one_or_several_calls(tool_llm: LLM) -> None:
    """This model makes several calls if it may."""

    def weather(city: City) -> str:
        """Tell the weather."""
        return "sunny"

    given: dict[str, Any] = {"tools": [weather], "tool_choice": "required", "temperature": 0, "max_tokens": 150}
    assert len(tool_llm.chat(QUESTION, parallel_tool_calls=True, **given).tool_calls) > 1
    one = tool_llm.chat(QUESTION, parallel_tool_calls=False, **given)
    assert len(one.tool_calls) == 1 and one.finish_reason == "tool_calls"


def test_last_round_calls_nothing(tool_llm: LLM) -> None:
    calls: list[int] = []

    def weather(city: City) -> str:
        calls.append(1)
        return "sunny"

    response = tool_llm.chat(
        QUESTION, tools=[weather], tool_choice="required", run_tools=True, temperature=0, max_tokens=150,
        max_rounds=1, parallel_tool_calls=False,
    )  # fmt: skip
    assert response.finish_reason == "tool_calls" and not calls
    with pytest.raises(ValueError, match="max_rounds is 0"):
        tool_llm.chat(QUESTION, tools=[weather], run_tools=True, max_rounds=0)


def test_returns_calls_of_tools_without_function(tool_llm: LLM) -> None:
    response = tool_llm.chat(
        QUESTION,
        tools=[TOOL],
        tool_choice="required",
        parallel_tool_calls=False,
        run_tools=True,
        temperature=0,
        max_tokens=150,
    )
    assert response.finish_reason == "tool_calls" and response.tool_calls[0].function.name == "get_weather"


def test_ignores_truncated_call(tool_llm: LLM) -> None:
    def weather(city: City) -> str:
        raise KeyboardInterrupt

    response = tool_llm.chat(
        QUESTION, tools=[weather], tool_choice="required", run_tools=True, temperature=0, max_tokens=6
    )
    assert response.finish_reason == "length"


def test_returns_tool_errors_to_the_model() -> None:
    def weather(city: City) -> str:
        raise OSError("no network")

    calls = [
        {"id": str(i), "type": "function", "function": {"name": name, "arguments": arguments}}
        for i, (name, arguments) in enumerate(
            [("weather", '{"city": "Rome"}'), ("weather", '{"city": "Oz"}'), ("nothing", "{}"), ("weather", "[1")]
        )
    ]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    response = ChatCompletion({"choices": [{"message": message, "finish_reason": "tool_calls"}]})
    body = next_request({"messages": []}, response, [weather], ControlTexts([]))
    assert body is not None
    texts = [message["content"] for message in body["messages"][1:]]
    assert "no network" in texts[0] and "Oz" in texts[1] and "there is no tool" in texts[2] and "JSON" in texts[3]
    assert [message["tool_call_id"] for message in body["messages"][1:]] == ["0", "1", "2", "3"]


def test_raises_keyboard_interrupt_of_a_tool(tool_llm: LLM) -> None:
    def weather(city: City) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tool_llm.chat(
            QUESTION,
            tools=[weather],
            tool_choice="required",
            parallel_tool_calls=False,
            run_tools=True,
            temperature=0,
            max_tokens=150,
        )


def test_runs_coroutine_tools_in_the_event_loop(tool_llm: LLM) -> None:
    """Coroutine functions run in the loop that waits for the response."""
    loops = []

    async def weather(city: City) -> str:
        """Tell the weather."""
        await asyncio.sleep(0)
        loops.append(asyncio.get_running_loop())
        return "sunny"

    async def talk() -> None:
        await tool_llm.achat(
            QUESTION, tools=[weather], tool_choice="required", run_tools=True, temperature=0, max_tokens=150,
            max_rounds=2, parallel_tool_calls=False,
        )  # fmt: skip
        assert loops and set(loops) == {asyncio.get_running_loop()}

    asyncio.run(talk())


def test_runs_coroutine_tools_in_a_notebook(tool_llm: LLM) -> None:
    """In a cell of a notebook, the thread that calls `chat` runs an event loop."""
    calls = []

    async def weather(city: City) -> str:
        """Tell the weather."""
        await asyncio.sleep(0)
        calls.append(city)
        return "sunny"

    async def cell(stream: bool) -> str:
        given: Any = {"tools": [weather], "tool_choice": "required", "run_tools": True, "parallel_tool_calls": False}
        given |= {"temperature": 0, "max_tokens": 150, "max_rounds": 2}
        if stream:
            return tool_llm.chat(QUESTION, stream=True, **given).result().text
        return tool_llm.chat(QUESTION, **given).text

    assert asyncio.run(cell(False)) == asyncio.run(cell(True))
    assert calls == [City.ROME, City.ROME]


def test_runs_awaitables_of_callable_objects(tool_llm: LLM) -> None:
    """`achat` awaits what any tool returns, in each round of a stream as well."""
    loops = []

    class weather:
        """Tell the weather."""

        async def __call__(self, city: City) -> str:
            loops.append(asyncio.get_running_loop())
            return "sunny"

    async def talk() -> None:
        given: Any = {"tools": [weather()], "tool_choice": "required", "run_tools": True, "max_rounds": 2}
        stream = await tool_llm.achat(
            QUESTION, stream=True, temperature=0, max_tokens=150, parallel_tool_calls=False, **given
        )
        await stream.result()
        assert loops and set(loops) == {asyncio.get_running_loop()}

    asyncio.run(talk())


def test_cancels_in_a_tool(tool_llm: LLM) -> None:
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
            parallel_tool_calls=False,
            run_tools=True,
            temperature=0,
            max_tokens=150,
            cancel=stop,
        )


def test_rejects_tools_without_template_support() -> None:
    with LLM(CHAT_MODEL, n_ctx=256) as llm, pytest.raises(UnsupportedError):
        llm.chat(QUESTION, tools=[TOOL], run_tools=True)
