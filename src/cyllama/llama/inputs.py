"""What requests are about that are no chats: tokens, texts to embed, documents to order."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["rerank_body", "texts_or_tokens", "token_list"]


def token_list(tokens: Sequence[int], name: str) -> list[int]:
    """Tokens as a list of int.

    Raises
    ------
    TypeError
    """
    if isinstance(tokens, bytes | bytearray | str | Mapping):
        raise TypeError(f"{name} is {tokens!r}, expected a text or a sequence of tokens")
    try:
        return [operator.index(token) for token in tokens]
    except TypeError:
        raise TypeError(f"{name} is {tokens!r}, expected a text or a sequence of tokens") from None


def texts_or_tokens(texts: Any) -> list[str | list[int]]:
    """One text or several, or lists of tokens, as a list.

    Raises
    ------
    TypeError, ValueError
    """
    if not isinstance(texts, Iterable) or isinstance(texts, bytes | bytearray | Mapping):
        raise TypeError(f"texts is {texts!r:.200}, expected a text or several")
    given = [texts] if isinstance(texts, str) else list(texts)
    if not given:
        raise ValueError(f"texts is {texts!r}, expected a text or several")
    return [text if isinstance(text, str) else token_list(text, f"texts[{i}]") for i, text in enumerate(given)]


def rerank_body(query: Any, documents: Any, top_n: Any) -> dict[str, Any]:
    """The request to order documents; upstream takes a `top_n` of another kind for all of them.

    Raises
    ------
    TypeError, ValueError
    """
    if not isinstance(query, str):
        raise TypeError(f"query is {query!r:.200}, expected a text")
    if isinstance(documents, str) or not isinstance(documents, Iterable):
        raise TypeError(f"documents is {documents!r:.200}, expected several texts")
    given = list(documents)
    if not given:
        raise ValueError(f"documents is {documents!r}, expected texts")
    for i, document in enumerate(given):
        if not isinstance(document, str):
            raise TypeError(f"documents[{i}] is {document!r:.200}, expected a text")
    if top_n is None:
        return {"query": query, "documents": given}
    if isinstance(top_n, bool) or not isinstance(top_n, int):
        raise TypeError(f"top_n is {top_n!r}, expected an integer")
    if top_n < 1:
        raise ValueError(f"top_n is {top_n}, expected 1 or more")
    return {"query": query, "documents": given, "top_n": top_n}
