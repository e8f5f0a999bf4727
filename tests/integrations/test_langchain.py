"""The chat model for LangChain, through LangChain's own interfaces."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool

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
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert len(chunks) > 4 and whole.text == model.invoke(QUESTION).text
    assert whole.usage_metadata == model.invoke(QUESTION).usage_metadata


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


def test_tools(model: ChatCyllama) -> None:
    with pytest.raises(UnsupportedError, match="tool calling"):
        model.bind_tools([add]).invoke("What is 2 + 3?")
    template = (TEMPLATES / "Qwen-Qwen2.5-7B-Instruct.jinja").read_text()
    tooled = model.model_copy(update={"settings": {"n_ctx": 2048, "chat_template": template}})
    bound = tooled.bind_tools([add], tool_choice="any").bind(max_tokens=64, parallel_tool_calls=False)
    (call,) = bound.invoke("What is 2 + 3?").tool_calls
    assert call["name"] == "add" and set(call["args"]) == {"a", "b"} and call["id"]
    chunks = list(bound.stream("What is 2 + 3?"))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert [(found["name"], found["args"]) for found in whole.tool_calls] == [(call["name"], call["args"])]
