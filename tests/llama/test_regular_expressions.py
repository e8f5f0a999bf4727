"""Regular expressions of callers: the matches of std::regex, in linear time, without recursion."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from llama.compare_linear_regex import different

from cyllama.errors import CyllamaError
from cyllama.llama import (
    LlamaModel,
    LlamaModelParams,
    LlamaQuantizeParams,
    LlamaSampler,
    llama_model_quantize,
)

EXPRESSIONS = [
    r"a*b", r"(a|b)*c", r"^(a+)(b?)$", r"[\s\S]*?(<a)[\s\S]*", r"(?:a|ab)(c|bcd)?", r"\w+\b", r"\Ba", r"(a)|(b)",
    r"[[:alpha:]]+1", r"[^[:space:]<]+", r"(?=a)\w", r"<(?!a)", r"a{2,3}?b", r"(a{1,2}){2}", r"(a*?)(b*)$",
    r"\x61\u0062", r"\D\d\W", r"(a|b|)c", r"[a-c_-]+", r"x{0}(a)", r"(x){0}(a)", r".", r"^$", r"(ab|a)(b|)", r"[\b\w]+",
]  # fmt: skip
# std::regex takes exponential time for the first three, and recurses for each character or each group in the others.
SLOW = ["^((.|\\s)+)+QQQQ$", "(a|a)*$", "(a*)*(a*)*(a*)*b", "[\\s\\S]*?(<tool>)[\\s\\S]*"]
INVALID = [
    "(" * 50_000,
    "a" * 400_000,
    "(((a{1000}){1000}){1000}){1000}",
    "(a)\\1",
    "[",
    "a{2,1}",
    "*",
    "((((((a*)*)*)*)*)*" * 20,
]


def test_finds_like_std_regex(tmp_path: Path) -> None:
    assert different([("groups", text) for text in EXPRESSIONS], tmp_path) == []


def lazy_grammar(expression: str, model: LlamaModel) -> None:
    """Make a grammar that waits for the expression in a long text."""
    chain = LlamaSampler()
    chain.add_grammar_lazy_patterns(model.vocab, 'root ::= "b"', trigger_patterns=[expression])
    (token,) = model.vocab.tokenize("aaaaaaaa", add_special=False)[:1]
    for _ in range(2000):
        chain.accept(token)


def buffer_types(expression: str, model: LlamaModel) -> None:
    params = LlamaModelParams(tensor_buft_overrides=[(expression, "CPU")])
    LlamaModel(model.path_model, params).close()


def tensor_types(expression: str, model: LlamaModel) -> None:
    params = LlamaQuantizeParams(tt_overrides=[(expression, "q8_0")], dry_run=True)
    llama_model_quantize(model.path_model, Path(model.path_model).with_suffix(".none"), params)


USES: list[Callable[[str, LlamaModel], None]] = [lazy_grammar, buffer_types, tensor_types]


@pytest.mark.parametrize("use", USES)
def test_expressions_of_callers_take_linear_time(
    use: Callable[[str, LlamaModel], None], tiny_model: LlamaModel
) -> None:
    def work(expression: str) -> None:
        with contextlib.suppress(CyllamaError):  # the text may be what the grammar waits for, and does not allow
            use(expression, tiny_model)

    for expression in SLOW:
        thread = threading.Thread(target=work, args=(expression,), daemon=True)
        thread.start()
        thread.join(120)
        assert not thread.is_alive(), expression


@pytest.mark.parametrize("use", USES)
def test_invalid_expressions_raise_errors(use: Callable[[str, LlamaModel], None], tiny_model: LlamaModel) -> None:
    for expression in INVALID:
        with pytest.raises((CyllamaError, ValueError)):
            use(expression, tiny_model)
    use("blk", tiny_model)


def test_a_long_text_before_the_trigger(tiny_model: LlamaModel) -> None:
    chain = LlamaSampler()
    vocab = tiny_model.vocab
    chain.add_grammar_lazy_patterns(vocab, 'root ::= "<tool>" "b"', trigger_patterns=["[\\s\\S]*?(<tool>)[\\s\\S]*"])
    for token in vocab.tokenize("some words " * 100 + "<tool>", add_special=False):
        chain.accept(token)
    with pytest.raises(CyllamaError):
        chain.accept(vocab.tokenize("c", add_special=False)[-1])
