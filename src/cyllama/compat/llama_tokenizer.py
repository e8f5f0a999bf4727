"""The tokenizer of a model, under the name of llama-cpp-python."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cyllama.compat.llama import Llama

__all__ = ["LlamaTokenizer"]


class LlamaTokenizer:
    """The tokenizer of a `Llama`, which `Llama.tokenizer` returns.

    Parameters
    ----------
    llama : Llama
    """

    def __init__(self, llama: Llama) -> None:
        self._llama = llama

    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = True) -> list[int]:
        """Return the tokens of a text (UTF-8)."""
        return self._llama.tokenize(text, add_bos, special)

    def detokenize(self, tokens: list[int], prev_tokens: list[int] | None = None, special: bool = False) -> bytes:
        """Return the text of tokens (UTF-8)."""
        return self._llama.detokenize(tokens, prev_tokens, special)

    def encode(self, text: str, add_bos: bool = True, special: bool = True) -> list[int]:
        """Return the tokens of a text."""
        return self.tokenize(text.encode("utf-8", "ignore"), add_bos, special)

    def decode(self, tokens: list[int]) -> str:
        """Return the text of tokens."""
        return self.detokenize(tokens).decode("utf-8", "ignore")
