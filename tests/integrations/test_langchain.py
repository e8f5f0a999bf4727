"""The chat model for LangChain, through LangChain's own interfaces."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from pydantic import BaseModel, ValidationError

from cyllama.errors import UnsupportedError
from cyllama.integrations.langchain import ChatCyllama
from cyllama.pipelines import default_pool

TEMPLATES = Path(__file__).resolve().parents[2] / "thirdparty" / "llama.cpp" / "models" / "templates"
QUESTION = "What is the capital of France? Answer with one word."


@pytest.fixture
def model() -> Iterator[ChatCyllama]:
    yield ChatCyllama(
        model="smollm2-135m-instruct", settings={"n_ctx": 2048}, fields={"temperature": 0, "max_tokens": 32}
    )
    default_pool().close()


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def test_invoke(model: ChatCyllama) -> None:
    response = model.invoke(QUESTION)
    assert isinstance(response, AIMessage) and "Paris" in response.text
    assert response.usage_metadata is not None and response.usage_metadata["output_tokens"] > 3
    assert response.response_metadata["finish_reason"] == "stop"
    talk = [SystemMessage("You are brief."), HumanMessage(QUESTION), response, HumanMessage("And of Italy?")]
    assert "Rome" in model.invoke(talk).text
    assert model.invoke(QUESTION, stop=["Paris"]).text.endswith(" is ")


def test_stream(model: ChatCyllama) -> None:
    chunks = list(model.stream(QUESTION))
    whole = joined(chunks)
    assert len(chunks) > 4 and whole.text == model.invoke(QUESTION).text
    assert model.invoke(QUESTION).usage_metadata == whole.usage_metadata | {"input_token_details": {"cache_read": 41}}
    assert whole.response_metadata["finish_reason"] == "stop"


def test_chain_and_batch(model: ChatCyllama) -> None:
    chain = (
        ChatPromptTemplate.from_template("What is the capital of {country}? Answer with one word.")
        | model
        | StrOutputParser()
    )
    france, italy = chain.batch([{"country": "France"}, {"country": "Italy"}])
    assert "Paris" in france and "Rome" in italy
    assert "Paris" in asyncio.run(chain.ainvoke({"country": "France"}))


def test_schema(model: ChatCyllama) -> None:
    schema = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]}
    assert json.loads(model.invoke(QUESTION, response_format=schema).text) == {"city": "Paris"}


def test_tools_need_a_template(model: ChatCyllama) -> None:
    with pytest.raises(UnsupportedError, match="tool calling"):
        model.bind_tools([add]).invoke("What is 2 + 3?")


@pytest.fixture(scope="module")
def tooled() -> Iterator[ChatCyllama]:
    template = TEMPLATES / "Qwen-Qwen2.5-7B-Instruct.jinja"
    settings = {"n_ctx": 4096, "n_parallel": 2, "chat_template": template}
    yield ChatCyllama(model="smollm2-135m-instruct", settings=settings, temperature=0, max_tokens=64)
    default_pool().close()


ONE_CALL: dict[str, Any] = {"parallel_tool_calls": False}


@pytest.mark.parametrize(
    ("choice", "calls"),
    [
        ("any", True),
        ("required", True),
        (True, True),
        ("add", True),
        ({"type": "function", "function": {"name": "add"}}, True),
        ("none", False),
        ("auto", None),
        (False, None),
        (None, None),
    ],
)
def test_tool_choice(tooled: ChatCyllama, choice: Any, calls: bool | None) -> None:
    response = tooled.bind_tools([add], tool_choice=choice, strict=True, **ONE_CALL).invoke("What is 2 + 3?")
    if calls:
        (call,) = response.tool_calls
        assert call["name"] == "add" and set(call["args"]) == {"a", "b"} and call["id"]
        assert response.response_metadata["finish_reason"] == "tool_calls"
    elif calls is False:
        assert not response.tool_calls


def test_rejects_unknown_tool(tooled: ChatCyllama) -> None:
    with pytest.raises(ValueError, match="'subtract'"):
        tooled.bind_tools([add], tool_choice="subtract").invoke("2 - 3")


def test_strict_schemas(tooled: ChatCyllama) -> None:
    bound: Any = tooled.bind_tools([add], strict=True)
    (function,) = [sent["function"] for sent in bound.kwargs["tools"]]
    assert function["strict"] is True and function["parameters"]["additionalProperties"] is False


def test_streams_tool_calls_and_uses_results(tooled: ChatCyllama) -> None:
    bound = tooled.bind_tools([add], tool_choice="any", **ONE_CALL)
    (call,) = bound.invoke("What is 2 + 3?").tool_calls
    whole = joined(list(bound.stream("What is 2 + 3?")))
    assert [(found["name"], found["args"]) for found in whole.tool_calls] == [(call["name"], call["args"])]
    assert whole.response_metadata["finish_reason"] == "tool_calls"
    result = ToolMessage("5", tool_call_id=call["id"])
    talk = [HumanMessage("What is 2 + 3?"), AIMessage("", tool_calls=[call]), result]
    assert tooled.bind_tools([add]).invoke(talk).usage_metadata["input_tokens"] > 100


def joined(chunks: list[Any]) -> Any:
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return whole


@pytest.mark.parametrize("most", range(4, 40, 5))
def test_call_that_is_cut_off_is_invalid(tooled: ChatCyllama, most: int) -> None:
    response = tooled.bind_tools([add], tool_choice="any").invoke("What is 2 + 3?", max_tokens=most)
    assert response.response_metadata["finish_reason"] == "length"
    for call in response.tool_calls:
        assert set(call["args"]) == {"a", "b"}
    for wrong in response.invalid_tool_calls:
        assert wrong["name"] == "add" and "max_tokens" in (wrong["error"] or "")


class City(BaseModel):
    """A city."""

    name: str


@pytest.mark.parametrize("method", ["json_schema", "function_calling", "json_mode"])
def test_structured_output(tooled: ChatCyllama, method: Any) -> None:
    question = f"{QUESTION} As JSON: name"
    found = tooled.with_structured_output(City, method=method).invoke(question)
    assert isinstance(found, City) and found.name
    whole: Any = tooled.with_structured_output(City, method=method, include_raw=True).invoke(question)
    assert whole["parsed"] == found and whole["parsing_error"] is None and isinstance(whole["raw"], AIMessage)
    if method != "json_mode":
        schema = {"title": "Town", "type": "object", "properties": {"x": {"type": "integer", "maximum": 9}}}
        schema |= {"required": ["x"], "additionalProperties": False}
        assert set(tooled.with_structured_output(schema, method=method, strict=True).invoke("3")) == {"x"}


def test_structured_output_works_with_every_template(model: ChatCyllama) -> None:
    assert isinstance(model.with_structured_output(City).invoke(QUESTION), City)
    parts: list[Any] = list(model.with_structured_output(City.model_json_schema()).stream(QUESTION))
    assert len(parts) > 1 and set(parts[-1]) == {"name"}


def test_structured_output_reports_what_is_cut_off(tooled: ChatCyllama) -> None:
    for most in (2, 6, 8):
        with pytest.raises(OutputParserException, match="max_tokens"):
            tooled.with_structured_output(City).invoke(QUESTION, max_tokens=most)
        with pytest.raises(OutputParserException, match="max_tokens"):
            asyncio.run(tooled.with_structured_output(City, method="function_calling", max_tokens=most).ainvoke("x"))
    whole: Any = tooled.with_structured_output(City, include_raw=True, max_tokens=6).invoke(QUESTION)
    assert whole["parsed"] is None and isinstance(whole["parsing_error"], OutputParserException)
    assert whole["raw"].response_metadata["finish_reason"] == "length"
    with pytest.raises(ValueError, match="'yaml'"):
        tooled.with_structured_output(City, method="yaml")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="strict"):
        tooled.with_structured_output(City, method="json_mode", strict=True)


def test_several_generations(tooled: ChatCyllama) -> None:
    result = tooled.generate([[HumanMessage("Tell a story.")]], n=2, temperature=1.0, seed=1, max_tokens=16)
    texts = [generation.text for generation in result.generations[0]]
    assert len(texts) == 2 and len(set(texts)) == 2
    with pytest.raises(ValueError, match="n is 2"):
        list(tooled.stream("x", n=2))


def test_logprobs(tooled: ChatCyllama) -> None:
    response = tooled.invoke(QUESTION, logprobs=True, top_logprobs=2, max_tokens=4)
    rows = response.response_metadata["logprobs"]["content"]
    assert "".join(row["token"] for row in rows) == response.text and len(rows[0]["top_logprobs"]) == 2
    whole = joined(list(tooled.stream(QUESTION, logprobs=True, max_tokens=4)))
    assert len(whole.response_metadata["logprobs"]["content"]) == len(rows)


def test_async(tooled: ChatCyllama) -> None:
    async def run() -> None:
        response = await tooled.ainvoke(QUESTION, max_tokens=8)
        whole = joined([chunk async for chunk in tooled.astream(QUESTION, max_tokens=8)])
        assert whole.text == response.text == tooled.invoke(QUESTION, max_tokens=8).text
        assert whole.usage_metadata["output_tokens"] == response.usage_metadata["output_tokens"]
        running = asyncio.create_task(tooled.ainvoke("Tell a long story.", max_tokens=3000, ignore_eos=True))
        await asyncio.sleep(0.2)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(run())


def test_timeout_and_model_of_a_call(tooled: ChatCyllama) -> None:
    with pytest.raises(TimeoutError, match="timeout=0.3"):
        tooled.invoke("Tell a long story.", max_tokens=100_000, ignore_eos=True, timeout=0.3)
    other = tooled.invoke("Hello", model="tiny-random-llama", max_tokens=3)
    assert other.response_metadata["model_name"] == "tiny-random-llama"
    assert tooled._get_ls_params(model="other")["ls_model_name"] == "other"
    assert tooled._get_ls_params()["ls_temperature"] == 0


def test_rejects_unknown_arguments(tooled: ChatCyllama) -> None:
    with pytest.raises(ValidationError, match="temprature"):
        ChatCyllama(model="x", temprature=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="temprature"):
        tooled.invoke("x", temprature=1)
    stopped = ChatCyllama(model=tooled.model, settings=tooled.settings, stop=["Paris"], temperature=0, max_tokens=16)
    assert "Paris" not in stopped.invoke(QUESTION).text and "Paris" in stopped.invoke(QUESTION, stop=["zzz"]).text
