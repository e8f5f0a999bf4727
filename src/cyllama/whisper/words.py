"""Words out of tokens."""

from __future__ import annotations

from collections.abc import Sequence

from cyllama.whisper.results import Token, Word

__all__ = ["APPENDED", "PREPENDED", "words_of"]

PREPENDED = "\"'“¿([{-"  # belongs to the word that follows
APPENDED = "\"'.。,，!！?？:：”)]}、"  # noqa: RUF001 - belongs to the word before
# Written without spaces between words: each character, or the token that ends one, is taken for a word.
WITHOUT_SPACES = frozenset({"zh", "ja", "th", "lo", "my", "yue"})


def words_of(
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
        The segment's, with their times; the alignment's times are taken where there are any.
    language : str
        Code of the language.
    start, end : float
        Of the segment, in seconds; no word lies outside of it.
    prepended, appended : str
        Punctuation that belongs to the word that follows, and to the one before.

    Returns
    -------
    tuple of Word
        Joined they are the text. Their times never go back.
    """
    groups = _merge(_complete(tokens, language), prepended, appended)
    words: list[Word] = []
    before = start
    for i, group in enumerate(groups):
        first, last = group[0], group[-1]
        if first.dtw is not None:
            following = groups[i + 1][0].dtw if i + 1 < len(groups) else end
            begins, ends = first.dtw, end if following is None else following
        else:
            begins = start if first.start is None else first.start
            ends = end if last.end is None else last.end
        begins = min(max(begins, before), end)
        before = min(max(ends, begins), end)
        probability = sum(token.probability for token in group) / len(group)
        words.append(Word(begins, before, _text(group), probability))
    return tuple(words)


def _text(tokens: Sequence[Token]) -> str:
    return b"".join(token.raw for token in tokens).decode("utf-8", "replace")


def _complete(tokens: Sequence[Token], language: str) -> list[list[Token]]:
    """Group tokens so that no character is split, and where a space begins a new word."""
    groups: list[list[Token]] = []
    open_character = False
    for token in tokens:
        begins = language in WITHOUT_SPACES or token.raw.startswith(b" ") or not groups
        if open_character or not begins:
            groups[-1].append(token)
        else:
            groups.append([token])
        open_character = _ends_inside_a_character(b"".join(part.raw for part in groups[-1]))
    return groups


def _ends_inside_a_character(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    return False


def _merge(groups: list[list[Token]], prepended: str, appended: str) -> list[list[Token]]:
    """Give punctuation that stands alone to its neighbour."""
    merged: list[list[Token]] = []
    for group in groups:
        text = _text(group).strip()
        before = _text(merged[-1]).strip() if merged else ""
        if merged and ((text and text in appended and not _text(group).startswith(" ")) or before in set(prepended)):
            merged[-1] = merged[-1] + group
        else:
            merged.append(group)
    return merged
