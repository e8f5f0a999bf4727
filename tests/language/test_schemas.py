"""Every answer that a schema constrains fits it."""

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
from cyllama.llama.schemas import check_schema, for_grammar, grammar_pattern

COUNT = 200


class Person(BaseModel):
    name: str
    age: int


def test_random_schemas() -> None:
    """With random weights all that the grammar allows is as likely."""
    no_bytes = [[token, -100.0] for token in range(131, 259)]  # single bytes, which random weights do not put together
    checker = jsonschema.FormatChecker(["uuid"])  # a grammar knows no calendar: 30 February is a date for it

    def ask(seed: int) -> tuple[int, str, str]:
        schema = random_schema(seed)
        answer = llm.chat(
            "JSON, please.", response_format=schema, temperature=1.0, seed=seed, max_tokens=500, logit_bias=no_bytes
        )
        return seed, answer.finish_reason, answer.text

    with LLM("tiny-random-llama", n_ctx=8192, n_parallel=8) as llm, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(COUNT)))
    assert len(answers) == COUNT
    for seed, reason, text in answers:
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
def test_patterns_mean_the_same(pattern: str, yes: tuple[str, ...], no: tuple[str, ...]) -> None:
    whole = re.compile(grammar_pattern(pattern))
    assert whole.pattern.startswith("^") and whole.pattern.endswith("$")
    for text in yes:
        assert re.search(pattern, text) and whole.match(text)
    for text in no:
        assert not whole.match(text)


def test_only_patterns_change() -> None:
    schema = {"properties": {"pattern": {"pattern": "a"}}, "enum": [{"pattern": "a"}], "items": [{"pattern": "^b$"}]}
    found = for_grammar(schema)
    assert found["enum"] == schema["enum"] and found["items"] == schema["items"]
    assert found["properties"] == {"pattern": {"pattern": grammar_pattern("a")}}


def test_a_real_model_fills_a_form(llm: LLM) -> None:
    answer = llm.chat("Alice is 30 years old. Who is it?", response_format=Person, temperature=0, max_tokens=60)
    assert isinstance(answer.parsed, Person) and (answer.parsed.name, answer.parsed.age) == ("Alice", 30)


def test_an_answer_that_is_cut_is_not_parsed(llm: LLM) -> None:
    schema = {"type": "object", "properties": {"text": {"type": "string", "minLength": 200}}, "required": ["text"]}
    answer = llm.chat("Write.", response_format=schema, max_tokens=5, temperature=0)
    assert answer.finish_reason == "length" and answer.parsed is None


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
def test_schemas_that_are_refused(llm: LLM, schema: Any, error: Any) -> None:
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
def test_a_schema_above_a_limit_is_refused(schema: dict[str, Any], message: str) -> None:
    for refused in (check_schema, for_grammar):
        with pytest.raises(ValueError, match=message):
            refused(schema)


def test_a_schema_that_contains_itself_is_refused() -> None:
    schema: dict[str, Any] = {"type": "array"}
    schema["items"] = schema
    with pytest.raises(ValueError, match="nested too deeply"):
        check_schema(schema)
