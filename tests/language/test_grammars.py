"""Grammars that would crash a parser are rejected; errors report the position."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cyllama import LLM
from cyllama.errors import GrammarError

DANGEROUS = {
    "deep nesting": "root ::= " + "(" * 100_000 + '"a"' + ")" * 100_000,
    "unbalanced": "root ::= " + "(" * 100_000,
    "invalid repetition": 'root ::= "a"{5,2}',
    "long chain of rules": "root ::= r0\n"
    + "\n".join(f"r{i} ::= r{i + 1}" for i in range(50_000))
    + '\nr50000 ::= "a"',
    "left recursion": 'root ::= root "a"',
    "exponential": "root ::= r0\n"
    + "".join(f'r{i} ::= r{i + 1}? r{i + 1}? "x"\n' for i in range(64))
    + 'r64 ::= "y"\n',
}


@pytest.mark.parametrize("name", DANGEROUS)
def test_rejects_dangerous_grammar(llm: LLM, name: str) -> None:
    with pytest.raises(GrammarError):
        llm.complete("x", grammar=DANGEROUS[name], max_tokens=2)
    with llm.request(
        "completion", json.dumps({"prompt": "x", "grammar": DANGEROUS[name], "n_predict": 2}).encode()
    ) as response:
        assert response.status == 400
    assert llm.complete("x", max_tokens=2, ignore_eos=True).usage.completion_tokens == 2


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
