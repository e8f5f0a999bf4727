"""Tokenize text with a vocabulary, with the same result as ``whisper_tokenize``.

whisper.cpp splits a text with ``std::regex``, which recurses for each character, and looks up every substring of a
word. Python's ``re`` does not recurse, and a lookup ends at the length of the longest token.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["MAX_TEXT", "Tokenizer"]

MAX_TEXT = 2**20  # bytes; the prompt of a model has a few hundred tokens
_WORD = re.compile(rb"'s|'t|'re|'ve|'m|'ll|'d| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+")


class Tokenizer:
    """A tokenizer for one vocabulary.

    Parameters
    ----------
    tokens : iterable of bytes
        The text of each token, in the order of their ids.
    """

    def __init__(self, tokens: Iterable[bytes]) -> None:
        self._ids = {token: id for id, token in enumerate(tokens) if token}
        self._longest = max(map(len, self._ids), default=0)

    def __call__(self, text: str) -> list[int]:
        """Return the tokens of `text`: for each word, the longest matching tokens from its start on.

        Raises
        ------
        TypeError
            `text` is not a string.
        ValueError
            `text` contains a null character or more than `MAX_TEXT` bytes.
        """
        if not isinstance(text, str):
            raise TypeError(f"text is {text!r}, expected a string")
        raw = text.encode()
        if b"\0" in raw:
            raise ValueError("text contains a null character")
        if len(raw) > MAX_TEXT:
            raise ValueError(f"text has {len(raw)} bytes, expected {MAX_TEXT} at most")
        found: list[int] = []
        for word in _WORD.findall(raw):
            start = 0
            while start < len(word):
                for end in range(min(len(word), start + self._longest), start, -1):
                    token = self._ids.get(word[start:end])
                    if token is not None:
                        found.append(token)
                        start = end
                        break
                else:
                    start += 1  # no token begins with this byte
        return found
