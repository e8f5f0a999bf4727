"""Why a grammar is refused, and where."""

from __future__ import annotations

import re
from pathlib import Path

from cyllama.errors import GrammarError
from cyllama.llama._model import LlamaModel
from cyllama.llama._sampler import LlamaSampler
from cyllama.llama.params import LlamaModelParams

__all__ = ["fault_of"]


def fault_of(grammar: str, model: Path) -> GrammarError | None:
    """The error for a grammar that the scheduler has refused without saying why; None if there is none.

    Parameters
    ----------
    grammar : str
    model : Path
        The file whose vocabulary the grammar is for.
    """
    with LlamaModel(model, LlamaModelParams(vocab_only=True)) as loaded, LlamaSampler() as chain:
        try:
            chain.add_grammar(loaded.vocab, grammar)
        except GrammarError as error:
            return GrammarError(_with_place(str(error), grammar))
    return None


def _with_place(text: str, grammar: str) -> str:
    """Upstream quotes all that follows the place: line, column and the line itself say more."""
    found = re.search(r"error parsing grammar: (expecting .*?|unknown escape) at (.*?)(?:; |\Z)", text, re.DOTALL)
    if found is None:
        undefined = re.search(r"error parsing grammar: ([^;]+)", text)
        return f"the grammar cannot be parsed: {undefined[1].strip()}" if undefined else text
    rest = found[2].strip()
    at = len(grammar) if not rest else grammar.rfind(rest)
    if at < 0:
        return f"the grammar cannot be parsed: {found[1]}"
    line = grammar.count("\n", 0, at) + 1
    column = at - (grammar.rfind("\n", 0, at) + 1) + 1
    shown = (grammar.splitlines() or [""])[min(line, grammar.count("\n") + 1) - 1]
    return f"the grammar cannot be parsed: {found[1]} at line {line}, column {column}: {shown[:80]!r}"
