"""Words out of tokens: what is joined, whose times they have."""

from __future__ import annotations

import math

import pytest

from cyllama.whisper.results import Token
from cyllama.whisper.words import words_of


def token(raw: bytes | str, start: float | None, end: float | None, p: float = 0.5, dtw: float | None = None) -> Token:
    data = raw if isinstance(raw, bytes) else raw.encode()
    return Token(len(data), data, p, math.log(p), start, end, dtw)


def test_tokens_become_words() -> None:
    tokens = [token(" fel", 0.0, 0.2, 0.4), token("low", 0.2, 0.5, 0.8), token(" men", 0.5, 0.9)]
    words = words_of(tokens, "en", 0.0, 1.0)
    assert [(word.word, word.start, word.end) for word in words] == [(" fellow", 0.0, 0.5), (" men", 0.5, 0.9)]
    assert words[0].probability == pytest.approx(0.6)


def test_punctuation_belongs_to_a_neighbour() -> None:
    tokens = [token(text, i / 10, (i + 1) / 10) for i, text in enumerate([' "', "Yes", ",", '"', " (", "he", ")", "."])]
    assert [word.word for word in words_of(tokens, "en", 0.0, 1.0)] == [' "Yes,"', " (he)."]
    kept = words_of([token(" a", 0, 1), token(" -", 1, 2), token(" b", 2, 3)], "en", 0, 3, prepended="", appended="")
    assert [word.word for word in kept] == [" a", " -", " b"]


def test_a_character_is_never_split() -> None:
    first, second = "é".encode()[:1], "é".encode()[1:]
    words = words_of([token(b" caf" + first, 0, 1), token(second, 1, 2), token(" x", 2, 3)], "en", 0, 3)
    assert [word.word for word in words] == [" café", " x"]
    raw = "你好".encode()
    assert [
        word.word for word in words_of([token(raw[:2], 0, 1), token(raw[2:4], 1, 2), token(raw[4:], 2, 3)], "zh", 0, 3)
    ]
    assert "".join(w.word for w in words_of([token(raw[:2], 0, 1), token(raw[2:], 1, 2)], "zh", 0, 3)) == "你好"


def test_languages_without_spaces() -> None:
    assert [word.word for word in words_of([token("你", 0, 1), token("好", 1, 2)], "zh", 0, 2)] == ["你", "好"]
    assert [word.word for word in words_of([token("你", 0, 1), token("好", 1, 2)], "en", 0, 2)] == ["你好"]


def test_times_stay_inside_and_never_go_back() -> None:
    tokens = [token(" a", 0.5, 3.0), token(" b", 2.0, 1.0), token(" c", 0.0, 9.0)]
    words = words_of(tokens, "en", 1.0, 2.5)
    times = [time for word in words for time in (word.start, word.end)]
    assert times == sorted(times) and times[0] >= 1.0 and times[-1] <= 2.5


def test_aligned_times_come_first() -> None:
    tokens = [token(" a", 0.0, 0.1, dtw=0.3), token(" b", 0.1, 0.2, dtw=0.7)]
    words = words_of(tokens, "en", 0.0, 1.0)
    assert [(word.start, word.end) for word in words] == [(0.3, 0.7), (0.7, 1.0)]


def test_no_tokens() -> None:
    assert words_of([], "en", 0.0, 1.0) == ()
