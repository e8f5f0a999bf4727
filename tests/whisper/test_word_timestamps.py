"""Words with times from tokens."""

from __future__ import annotations

import math

import pytest

from cyllama.whisper._word_timestamps import join_words
from cyllama.whisper.results import Token


def token(raw: bytes | str, start: float | None, end: float | None, p: float = 0.5) -> Token:
    data = raw if isinstance(raw, bytes) else raw.encode()
    return Token(len(data), data, p, math.log(p), start, end)


def test_joins_tokens_into_words() -> None:
    tokens = [token(" fel", 0.0, 0.2, 0.4), token("low", 0.2, 0.5, 0.8), token(" men", 0.5, 0.9)]
    words = join_words(tokens, "en", 0.0, 1.0)
    assert [(word.word, word.start, word.end) for word in words] == [(" fellow", 0.0, 0.5), (" men", 0.5, 0.9)]
    assert words[0].probability == pytest.approx(0.6)


def test_merges_punctuation_with_words() -> None:
    tokens = [token(text, i / 10, (i + 1) / 10) for i, text in enumerate([' "', "Yes", ",", '"', " (", "he", ")", "."])]
    assert [word.word for word in join_words(tokens, "en", 0.0, 1.0)] == [' "Yes,"', " (he)."]
    kept = join_words([token(" a", 0, 1), token(" -", 1, 2), token(" b", 2, 3)], "en", 0, 3, prepended="", appended="")
    assert [word.word for word in kept] == [" a", " -", " b"]


def test_does_not_split_characters() -> None:
    first, second = "é".encode()[:1], "é".encode()[1:]
    words = join_words([token(b" caf" + first, 0, 1), token(second, 1, 2), token(" x", 2, 3)], "en", 0, 3)
    assert [word.word for word in words] == [" café", " x"]
    raw = "你好".encode()
    split = [token(raw[:2], 0, 1), token(raw[2:4], 1, 2), token(raw[4:], 2, 3)]
    assert [word.word for word in join_words(split, "zh", 0, 3)] == ["你好"]
    whole = [token(raw[:2], 0, 1), token(raw[2:3], 1, 2), token(raw[3:], 2, 3)]
    assert [word.word for word in join_words(whole, "zh", 0, 3)] == ["你", "好"]


def test_languages_without_spaces() -> None:
    assert [word.word for word in join_words([token("你", 0, 1), token("好", 1, 2)], "zh", 0, 2)] == ["你", "好"]
    assert [word.word for word in join_words([token("你", 0, 1), token("好", 1, 2)], "en", 0, 2)] == ["你好"]


def test_times_are_ordered_and_within_the_segment() -> None:
    tokens = [token(" a", 0.5, 3.0), token(" b", 2.0, 1.0), token(" c", 0.0, 9.0)]
    words = join_words(tokens, "en", 1.0, 2.5)
    times = [time for word in words for time in (word.start, word.end)]
    assert times == sorted(times) and times[0] >= 1.0 and times[-1] <= 2.5


def test_no_tokens_give_no_words() -> None:
    assert join_words([], "en", 0.0, 1.0) == ()
