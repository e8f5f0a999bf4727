"""Damaged tables in the head of a model are rejected: the engine computes with them in every window."""

from __future__ import annotations

import struct

import pytest
from data.parakeet import parakeet_model, places

from cyllama import models
from cyllama.errors import ModelLoadError
from cyllama.whisper import ParakeetContext, WhisperContext

FILTERS = 4 + 11 * 4 + 2 * 4  # offset of the mel filters of a Whisper model
N_FILTERS = 80 * 201
TEXT_HEADS = 4 + 7 * 4  # offset of n_text_head
NOT_NUMBERS = [float("nan"), float("inf"), float("-inf"), 3e38]


def with_float(data: bytes, at: int, value: float) -> bytes:
    return data[:at] + struct.pack("<f", value) + data[at + 4 :]


@pytest.fixture(scope="module")
def vocabulary() -> bytes:
    return models.get("vocab-whisper-en").read_bytes()


@pytest.mark.parametrize("value", [*NOT_NUMBERS, -0.5, 1.5])
@pytest.mark.parametrize("number", [0, 7_777, N_FILTERS - 1])
def test_rejects_damaged_mel_filters(vocabulary: bytes, number: int, value: float) -> None:
    with pytest.raises(ModelLoadError, match="mel filters"):
        WhisperContext.from_bytes(with_float(vocabulary, FILTERS + 4 * number, value))


def test_accepts_other_mel_filters(vocabulary: bytes) -> None:
    WhisperContext.from_bytes(with_float(vocabulary, FILTERS, 1.0)).close()


def test_rejects_other_number_of_text_heads(vocabulary: bytes) -> None:
    with pytest.raises(ModelLoadError, match="n_text_head"):
        WhisperContext.from_bytes(vocabulary[:TEXT_HEADS] + struct.pack("<i", 3) + vocabulary[TEXT_HEADS + 4 :])


@pytest.mark.parametrize("value", [*NOT_NUMBERS, -101.0])
@pytest.mark.parametrize("table", ["filters", "window"])
def test_rejects_damaged_tables_of_parakeet(table: str, value: float) -> None:
    data = parakeet_model().read_bytes()
    start = places(data)[table] + (8 if table == "filters" else 4)
    with pytest.raises(ModelLoadError, match="mel filters" if table == "filters" else "window"):
        ParakeetContext.from_bytes(with_float(data, start + 4, value))
