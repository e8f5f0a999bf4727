"""Grammars that would crash a parser are rejected; errors report the position."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cyllama import LLM
from cyllama.errors import GrammarError

DANGEROUS = {
    "deep nesting": "root ::= " + "(" * 49_000 + '"a"' + ")" * 49_000,
    "unbalanced": "root ::= " + "(" * 99_000,
    "invalid repetition": 'root ::= "a"{5,2}',
    "left recursion": 'root ::= root "a"',
    "exponential": "root ::= r0\n"
    + "".join(f'r{i} ::= r{i + 1}? r{i + 1}? "x"\n' for i in range(64))
    + 'r64 ::= "y"\n',
}


def test_limits_the_length_of_grammars(llm: LLM) -> None:
    chain = "root ::= r0\n" + "".join(f"r{i} ::= r{i + 1}\n" for i in range(50_000)) + 'r50000 ::= "a"'
    with pytest.raises(ValueError, match="100000"):
        llm.complete("x", grammar=chain, max_tokens=2)
    with llm.request("completion", json.dumps({"prompt": "x", "grammar": chain}).encode()) as response:
        assert response.status == 400


@pytest.mark.parametrize("name", DANGEROUS)
def test_rejects_dangerous_grammar(llm: LLM, name: str) -> None:
    with pytest.raises(GrammarError):
        llm.complete("x", grammar=DANGEROUS[name], max_tokens=2)
    with llm.request(
        "completion", json.dumps({"prompt": "x", "grammar": DANGEROUS[name], "n_predict": 2}).encode()
    ) as response:
        assert response.status == 400
    assert llm.complete("x", max_tokens=2, ignore_eos=True).usage.completion_tokens == 2


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fields", [{"ignore_eos": True}, {"logit_bias": {"<|im_end|>": False}}])
@pytest.mark.parametrize("samplers", [["temperature"], ["top_k", "min_p"]])
def test_text_ends_with_its_grammar(llm: LLM, fields: Any, samplers: list[str], stream: bool) -> None:
    found: Any = llm.complete("x", grammar='root ::= "yes"', max_tokens=20, samplers=samplers, stream=stream, **fields)
    found = found.result() if stream else found
    assert found.text == "yes" and found.finish_reason == "stop"


@pytest.mark.parametrize("samplers", [["temperature"], ["top_k"], []])
def test_rejects_grammar_whose_tokens_are_excluded(llm: LLM, samplers: list[str]) -> None:
    for temperature in (0, 1):
        fields: Any = {"temperature": temperature, "samplers": samplers, "logit_bias": {"~": False}}
        with pytest.raises(GrammarError):
            llm.complete("x", max_tokens=8, grammar='root ::= "~"', **fields)


@pytest.mark.parametrize(
    ("grammar", "place"),
    [
        ("root ::= (((", "at line 1, column 13"),
        ('root ::= "a"\nother := "b"', "expecting ::= at line 2, column 7"),
        ('root ::= "a" b\nb ::= [a-z]\n c ::= d', "'d'"),
        ("root ::= missing", "'missing'"),
        ('root ::= "a"{x}', "expecting an int at line 1, column 14"),
    ],
)
def test_reports_line_and_column(llm: LLM, grammar: str, place: str) -> None:
    with pytest.raises(GrammarError, match=place):
        llm.complete("x", grammar=grammar, max_tokens=2)


def test_limits_depth_of_schemas(llm: LLM) -> None:
    for depth in (20, 300, 900, 100_000):
        schema: dict[str, Any] = {"type": "null"}
        for _ in range(depth):
            schema = {"type": "array", "items": schema}
        for field in ("response_format", "json_schema"):
            try:
                assert llm.chat("x", max_tokens=4, **{field: schema}).finish_reason == "length"
            except ValueError:
                assert depth > 100
    assert llm.complete("x", max_tokens=2, ignore_eos=True).usage.completion_tokens == 2
