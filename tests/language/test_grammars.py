"""Grammars that would end a parser are refused, whichever way they come; the others say what is wrong where."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cyllama import LLM
from cyllama.errors import GrammarError

ODD = {
    "deep": "root ::= " + "(" * 100_000 + '"a"' + ")" * 100_000,
    "unbalanced": "root ::= " + "(" * 100_000,
    "no repetition": 'root ::= "a"{5,2}',
    "rules that lead to rules": "root ::= r0\n"
    + "\n".join(f"r{i} ::= r{i + 1}" for i in range(50_000))
    + '\nr50000 ::= "a"',
    "left": 'root ::= root "a"',
    "ways that double": "root ::= r0\n"
    + "".join(f'r{i} ::= r{i + 1}? r{i + 1}? "x"\n' for i in range(64))
    + 'r64 ::= "y"\n',
}


@pytest.mark.parametrize("name", ODD)
def test_refused(llm: LLM, name: str) -> None:
    with pytest.raises(GrammarError):
        llm.complete("x", grammar=ODD[name], max_tokens=2)
    with llm.request(
        "completion", json.dumps({"prompt": "x", "grammar": ODD[name], "n_predict": 2}).encode()
    ) as answer:
        assert answer.status == 400
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
def test_places(llm: LLM, grammar: str, place: str) -> None:
    with pytest.raises(GrammarError, match=place):
        llm.complete("x", grammar=grammar, max_tokens=2)


def test_schemas_of_any_depth(llm: LLM) -> None:
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
