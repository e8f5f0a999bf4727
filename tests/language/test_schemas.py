"""Responses match the schema that constrains them."""

from __future__ import annotations

import functools
import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jsonschema
import pytest
from language.schemas import random_schema
from pydantic import BaseModel

from cyllama import LLM
from cyllama.errors import GrammarError
from cyllama.llama import json_schema_to_grammar
from cyllama.llama._json_schema import check_schema, for_grammar, grammar_pattern

COUNT = 60


class Person(BaseModel):
    name: str
    age: int


def test_responses_match_random_schemas() -> None:
    """With random weights, every text that the grammar allows is equally likely."""
    no_bytes = [[token, -100.0] for token in range(131, 259)]  # single bytes: random weights would not form UTF-8
    checker = jsonschema.FormatChecker(["uuid"])  # a grammar accepts 30 February

    def request(seed: int) -> tuple[int, str, str]:
        schema = random_schema(seed)
        response = llm.chat(
            "JSON, please.", response_format=schema, temperature=1.0, seed=seed, max_tokens=500, logit_bias=no_bytes
        )
        return seed, response.finish_reason, response.text

    with LLM("tiny-random-llama", n_ctx=8192, n_parallel=8) as llm, ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(request, range(COUNT)))
    assert len(responses) == COUNT
    for seed, reason, text in responses:
        assert reason == "stop", (seed, text)
        jsonschema.validate(json.loads(text), random_schema(seed), format_checker=checker)


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("a|b", ("a", "xxbx"), ("", "c")),
        ("^a", ("a", "abc"), ("ba",)),
        ("a$", ("a", "ba"), ("ab",)),
        (r"^\d{2}[\w-]$", ("12_", "00-"), ("1a_", "12.")),
        (r"^[^\d]\.$", ("a.", "é."), ("1.", "ab", '".')),
        (r"x\$", ("x$", "ax$b"), ("x",)),
    ],
)
def test_converted_pattern_matches_the_same(pattern: str, yes: tuple[str, ...], no: tuple[str, ...]) -> None:
    whole = re.compile(grammar_pattern(pattern))
    assert whole.pattern.startswith("^") and whole.pattern.endswith("$")
    for text in yes:
        assert re.search(pattern, text) and whole.match(text)
    for text in no:
        assert not whole.match(text)


def test_converts_only_patterns() -> None:
    schema = {"properties": {"pattern": {"pattern": "a"}}, "enum": [{"pattern": "a"}], "items": [{"pattern": "^b$"}]}
    found = for_grammar(schema)
    assert found["enum"] == schema["enum"] and found["items"] == schema["items"]
    assert found["properties"] == {"pattern": {"pattern": grammar_pattern("a")}}


def test_real_model_fills_a_schema(llm: LLM) -> None:
    response = llm.chat("Alice is 30 years old. Who is it?", response_format=Person, temperature=0, max_tokens=60)
    assert isinstance(response.parsed, Person) and (response.parsed.name, response.parsed.age) == ("Alice", 30)


def test_truncated_response_is_not_parsed(llm: LLM) -> None:
    schema = {"type": "object", "properties": {"text": {"type": "string", "minLength": 200}}, "required": ["text"]}
    response = llm.chat("Write.", response_format=schema, max_tokens=5, temperature=0)
    assert response.finish_reason == "length" and response.parsed is None


@pytest.mark.parametrize(
    ("schema", "error"),
    [
        ({"type": "strange"}, (ValueError, GrammarError)),
        ({"$ref": "#/$defs/nowhere"}, (ValueError, GrammarError)),
        ({"type": "string", "pattern": "(((("}, (ValueError, GrammarError)),
        ({"$ref": "https://example.invalid/schema.json"}, (ValueError, GrammarError)),
        (complex, TypeError),
    ],
)
def test_rejects_invalid_schemas(llm: LLM, schema: Any, error: Any) -> None:
    with pytest.raises(error):
        llm.chat("x", response_format=schema, max_tokens=5)
    assert llm.chat("Say yes.", max_tokens=2).text


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"properties": {f"p{i}": {} for i in range(300)}}, "300 properties in one object"),
        ({"$defs": {f"p{i}": {} for i in range(300)}}, r"300 \$defs in one object"),
        ({"type": "string", "pattern": "a" * 2000}, "pattern of 2000 characters"),
        ({"anyOf": [{"$ref": "#"}] * 1500}, "more than 1000 references"),
        ({"enum": list(range(20_000))}, "more than 10000 parts"),
        (functools.reduce(lambda inner, _: {"items": inner}, range(100), {}), "nested too deeply"),
    ],
)
def test_rejects_schema_above_a_limit(schema: dict[str, Any], message: str) -> None:
    for refused in (check_schema, for_grammar):
        with pytest.raises(ValueError, match=message):
            refused(schema)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "string", "minLength": 11, "maxLength": 5}, "minLength 11 and maxLength 5"),
        ({"items": {"minItems": 3, "maxItems": 1}}, "minItems 3 and maxItems 1"),
        ({"type": "integer", "minimum": 5, "maximum": 1.5}, "minimum 5 and maximum 1.5"),
        ({"type": "string", "pattern": r"^\{9,1}a{11,5}$"}, r"\{11,5\} in a pattern"),
    ],
)
def test_rejects_bounds_that_no_value_satisfies(schema: dict[str, Any], message: str) -> None:
    for refused in (check_schema, for_grammar):
        with pytest.raises(ValueError, match=message):
            refused(schema)
    with pytest.raises(GrammarError, match=message):
        json_schema_to_grammar(schema)


def test_accepts_equal_bounds() -> None:
    check_schema({"minLength": 2, "maxLength": 2, "pattern": r"a{2,2}\\{3,1", "minimum": None, "maximum": 1})


def test_rejects_schema_that_contains_itself() -> None:
    schema: dict[str, Any] = {"type": "array"}
    schema["items"] = schema
    with pytest.raises(ValueError, match="nested too deeply"):
        check_schema(schema)
