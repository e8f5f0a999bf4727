"""Grammars, under the names of llama-cpp-python."""

from __future__ import annotations

import os
from pathlib import Path

from cyllama.llama import json_schema_to_grammar

__all__ = ["LlamaGrammar"]


class LlamaGrammar:
    """A grammar in GBNF.

    Parameters
    ----------
    text : str
        Its rules.
    """

    def __init__(self, text: str) -> None:
        self.text = text

    @classmethod
    def from_string(cls, grammar: str, verbose: bool = True) -> LlamaGrammar:
        """Return the grammar of a text.

        Raises
        ------
        ValueError
            The text has no rule: it may be the name of a file.
        """
        if "::=" not in grammar:
            hint = "; LlamaGrammar.from_file reads a file" if os.path.exists(grammar) else ""
            raise ValueError(f'grammar is {grammar!r:.100}, expected rules such as \'root ::= "yes" | "no"\'{hint}')
        return cls(grammar)

    @classmethod
    def from_file(cls, file: str | os.PathLike[str], verbose: bool = True) -> LlamaGrammar:
        """Read a grammar from a file."""
        return cls.from_string(Path(file).read_text(encoding="utf-8"))

    @classmethod
    def from_json_schema(cls, json_schema: str, verbose: bool = True) -> LlamaGrammar:
        """Return the grammar of a JSON schema."""
        return cls(json_schema_to_grammar(json_schema))
