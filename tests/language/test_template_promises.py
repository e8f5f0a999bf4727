"""Schemas and tools hold with every chat template of upstream: enforced or refused, and no response is lost."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from language.conftest import TEMPLATES

from cyllama import LLM
from cyllama.errors import UnsupportedError
from cyllama.llama import ChatCompletion

FILES = sorted(TEMPLATES.glob("*.jinja"))
SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["n"],
    "additionalProperties": False,
}
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS: Any = [{"type": "function", "function": {"name": name, "parameters": PARAMETERS}} for name in ("one", "two")]


@pytest.fixture(scope="module", params=FILES, ids=lambda path: path.stem)
def random_llm(request: pytest.FixtureRequest) -> Iterator[LLM]:
    """Random weights: nothing but the grammar makes the text valid."""
    with LLM("tiny-random-llama", n_ctx=8192, n_parallel=1, n_threads=1, chat_template=request.param.read_text(),
             check_memory=False) as found:  # fmt: skip
        yield found


def chat(llm: LLM, **fields: Any) -> ChatCompletion | None:
    """Return the response; None if the request is refused."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            # reasoning comes before what a grammar enforces, and a random model does not end it
            thinking = {"chat_template_kwargs": {"enable_thinking": False}}
            return llm.chat("Hello", seed=3, **{"max_tokens": 200, **thinking, **fields})
        except UnsupportedError:
            return None


def check_calls(found: ChatCompletion, names: set[str]) -> None:
    assert found.finish_reason in ("tool_calls", "length"), found
    for call in found.tool_calls if found.finish_reason == "tool_calls" else ():
        assert call.function.name in names
        jsonschema.validate(json.loads(call.function.arguments), PARAMETERS)


def test_schema_is_enforced(random_llm: LLM) -> None:
    found = chat(random_llm, response_format=SCHEMA)
    assert found is not None
    if found.finish_reason == "length":
        assert found.reasoning and not found.text
        return
    jsonschema.validate(json.loads(found.text), SCHEMA)
    assert found.parsed == json.loads(found.text)


@pytest.mark.parametrize("choice", ["required", "two"])
def test_required_tool_is_called(random_llm: LLM, choice: str) -> None:
    found = chat(random_llm, tools=TOOLS, tool_choice=choice, parallel_tool_calls=False)
    if found is None:
        assert not random_llm.supports("tools")
    elif found.finish_reason == "length":
        assert found.reasoning and not found.text
    else:
        assert len(found.tool_calls) == 1
        check_calls(found, {"one", "two"} if choice == "required" else {"two"})


def test_schema_beside_tools_is_enforced_or_refused(random_llm: LLM) -> None:
    found = chat(random_llm, response_format=SCHEMA, tools=TOOLS)
    if found is not None and found.finish_reason == "stop":
        jsonschema.validate(json.loads(found.text), SCHEMA)
    elif found is not None:
        assert found.finish_reason == "tool_calls" or (found.reasoning and not found.text)


def test_streams_are_the_same(random_llm: LLM) -> None:
    fields: list[dict[str, Any]] = [{"response_format": SCHEMA}]
    if random_llm.supports("tools"):
        fields.append({"tools": TOOLS, "tool_choice": "two", "parallel_tool_calls": False})
    for given in fields:
        plain = chat(random_llm, temperature=0, **given)
        thinking: Any = {"chat_template_kwargs": {"enable_thinking": False}}
        with random_llm.chat(
            "Hello", seed=3, max_tokens=200, temperature=0, stream=True, **thinking, **given
        ) as chunks:
            streamed = chunks.result()
        assert plain is not None and (streamed.text, streamed.reasoning or "") == (plain.text, plain.reasoning or "")
        calls = [[(c.function.name, json.loads(c.function.arguments)) for c in f.tool_calls] for f in (plain, streamed)]
        assert calls[0] == calls[1] and streamed.finish_reason == plain.finish_reason


def test_no_response_is_lost(random_llm: LLM) -> None:
    """Of text that is not in the template's form: with tools and without, whole and cut."""
    for fields in ({}, {"tools": TOOLS}, {"tools": TOOLS, "tool_choice": "none"}):
        for most in (40, 3):
            found = chat(random_llm, temperature=2.0, max_tokens=most, **fields)
            if found is not None:
                assert found.usage.completion_tokens <= most and found.finish_reason in ("stop", "length", "tool_calls")


@pytest.mark.parametrize("fields", [{"response_format": SCHEMA}, {"tools": TOOLS, "tool_choice": "required"}])
def test_cut_response_is_returned(random_llm: LLM, fields: dict[str, Any]) -> None:
    found = chat(random_llm, max_tokens=2, **fields)
    if found is not None:
        assert (found.finish_reason, found.usage.completion_tokens) == ("length", 2)
        assert found.parsed is None
