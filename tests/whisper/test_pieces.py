"""Pieces of sound: nothing lost, cut where it is quiet, times found back."""

from __future__ import annotations

import numpy as np
import pytest

from cyllama.media.audio import SAMPLE_RATE, AudioStream
from cyllama.whisper import pieces
from cyllama.whisper.pieces import find_speech, plain_pieces, speech_pieces


def test_a_short_sound_is_one_piece() -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 5 * SAMPLE_RATE).astype(np.float32)
    (piece,) = plain_pieces(AudioStream(samples))
    assert np.array_equal(piece.samples, samples)
    assert (piece.start, piece.end, piece.start_time(2.5), piece.end_time(99)) == (0.0, 5.0, 2.5, 5.0)


@pytest.mark.parametrize("seconds", [60, 75, 130])
def test_a_long_sound_is_cut_where_it_is_quiet(monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    monkeypatch.setattr(pieces, "PIECE_SECONDS", 60.0)
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, seconds * SAMPLE_RATE).astype(np.float32)
    quiet = slice(round(41.0 * SAMPLE_RATE), round(41.5 * SAMPLE_RATE))
    samples[quiet] = 0
    found = list(plain_pieces(AudioStream(samples)))
    assert len(found) == {60: 1, 75: 2, 130: 3}[seconds]
    assert np.array_equal(np.concatenate([piece.samples for piece in found]), samples)
    assert [piece.end for piece in found[:-1]] == [piece.start for piece in found[1:]]
    if len(found) > 1:
        assert 41.0 <= found[0].end <= 41.5
    assert found[-1].end == seconds


def test_clips_are_pieces() -> None:
    samples = np.arange(4 * SAMPLE_RATE, dtype=np.float32) / (4 * SAMPLE_RATE)
    first, second = plain_pieces(AudioStream(samples, clip="1,1.5,3"))
    assert np.array_equal(first.samples, samples[SAMPLE_RATE : SAMPLE_RATE * 3 // 2])
    assert (first.start, first.end, second.start, second.end) == (1.0, 1.5, 3.0, 4.0)


def test_speech_is_found_in_each_piece() -> None:
    stream = AudioStream(np.zeros(4 * SAMPLE_RATE, np.float32), clip="1,2,3,4")
    assert find_speech(plain_pieces(stream), lambda samples: [(0.25, 0.5)]) == [(1.25, 1.5), (3.25, 3.5)]


def test_parts_of_speech_are_put_together() -> None:
    samples = np.random.default_rng(0).uniform(0.1, 0.5, 6 * SAMPLE_RATE).astype(np.float32)
    stream = AudioStream(samples)
    (piece,) = speech_pieces(stream, [(1.0, 1.5), (3.0, 3.5)])
    assert len(piece.samples) == round((0.5 + 0.1 + 0.1 + 0.5) * SAMPLE_RATE)  # overlap, then silence
    assert not piece.samples[round(0.6 * SAMPLE_RATE) : round(0.7 * SAMPLE_RATE)].any()
    moments = (-1.0, 0.0, 0.25, 0.5, 0.6, 0.7, 0.95, 1.2, 9.0)
    assert [piece.start_time(m) for m in moments] == pytest.approx([1.0, 1.0, 1.25, 3.0, 3.0, 3.0, 3.25, 3.5, 3.5])
    assert [piece.end_time(m) for m in moments] == pytest.approx([1.0, 1.0, 1.25, 1.5, 1.5, 1.5, 3.25, 3.5, 3.5])


def test_no_more_speech_than_fits() -> None:
    stream = AudioStream(np.zeros(90 * SAMPLE_RATE, np.float32))
    speech = [(float(i), i + 0.8) for i in range(0, 88, 4)] + [(88.0, 90.0)]
    found = list(speech_pieces(stream, speech, 5.0))
    assert all(len(piece.samples) <= 5 * SAMPLE_RATE for piece in found)
    assert found[0].start == 0.0 and found[-1].end == 90.0
    assert list(speech_pieces(stream, [])) == []
