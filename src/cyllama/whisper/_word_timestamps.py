"""Group tokens into words with times."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from cyllama.whisper._segments import Token, Word

__all__ = ["APPENDED", "PREPENDED", "group_words", "join_text", "join_words", "make_word"]

PREPENDED = "\"'“¿([{-"  # punctuation that belongs to the next word
APPENDED = "\"'.。,，!！?？:：”)]}、"  # noqa: RUF001 - punctuation that belongs to the previous word
# Languages without spaces between words: each character, or group of tokens that ends one, counts as a word.
WITHOUT_SPACES = frozenset({"zh", "ja", "th", "lo", "my", "yue"})


def join_words(
    tokens: Sequence[Token],
    language: str,
    start: float,
    end: float,
    *,
    prepended: str = PREPENDED,
    appended: str = APPENDED,
) -> tuple[Word, ...]:
    """Return the words of a segment.

    Parameters
    ----------
    tokens : sequence of Token
        Tokens of the segment.
    language : str
        Code of the language.
    start, end : float
        Of the segment, in seconds; all words are within.
    prepended, appended : str
        Punctuation that belongs to the next word and to the previous word.

    Returns
    -------
    tuple of Word
        Joined, they are the text. Their times do not decrease.
    """
    words: list[Word] = []
    previous_end = start
    for group in group_words(tokens, language, prepended=prepended, appended=appended):
        first, last = group[0], group[-1]
        begins = start if first.start is None else first.start
        ends = end if last.end is None else last.end
        begins = min(max(begins, previous_end), end)
        previous_end = min(max(ends, begins), end)
        words.append(make_word(group, begins, previous_end))
    return tuple(words)


def make_word(tokens: Sequence[Token], start: float, end: float) -> Word:
    """Return the word of some tokens."""
    return Word(start, end, join_text(tokens), sum(token.probability for token in tokens) / len(tokens))


def group_words(tokens: Sequence[Token], language: str, *, prepended: str, appended: str) -> list[list[Token]]:
    """Group tokens into words, with the punctuation that belongs to them."""
    return _merge_punctuation(_group_tokens(tokens, language), prepended, appended)


def join_text(tokens: Sequence[Token]) -> str:
    """Return the text of tokens; parts of characters are U+FFFD."""
    return b"".join(token.raw for token in tokens).decode("utf-8", "replace")


def _group_tokens(tokens: Sequence[Token], language: str) -> list[list[Token]]:
    """Group tokens into words: a space begins a word, and no character is split."""
    groups: list[list[Token]] = []
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for token in tokens:
        begins = language in WITHOUT_SPACES or token.raw.startswith(b" ") or not groups
        inside_character = bool(decoder.getstate()[0])
        if inside_character or not begins:
            groups[-1].append(token)
        else:
            groups.append([token])
        decoder.decode(token.raw)
    return groups


def _merge_punctuation(groups: list[list[Token]], prepended: str, appended: str) -> list[list[Token]]:
    """Merge groups of punctuation with the next or the previous word."""
    merged: list[list[Token]] = []
    for group in groups:
        raw_text = join_text(group)
        text = raw_text.strip()
        previous = join_text(merged[-1]).strip() if merged else ""
        is_appended = bool(text) and text in appended and not raw_text.startswith(" ")
        if merged and (is_appended or previous in set(prepended)):
            merged[-1] = merged[-1] + group
        else:
            merged.append(group)
    return merged
