"""Records of a transcription: their names, their shapes, and what openai-whisper and faster-whisper would give."""

from __future__ import annotations

import dataclasses
import json
import math
import zlib

import pytest
from data.transcripts import INFO, segment, talk, word

from cyllama.whisper.results import Segment, Token, Transcription, TranscriptionInfo, Word, compression_ratio


def test_the_fields_of_faster_whisper() -> None:
    assert [field.name for field in dataclasses.fields(Segment)][:11] == [
        "id", "seek", "start", "end", "text", "tokens", "avg_logprob", "compression_ratio", "no_speech_prob", "words",
        "temperature",
    ]  # fmt: skip
    assert [field.name for field in dataclasses.fields(Word)] == ["start", "end", "word", "probability"]
    assert [field.name for field in dataclasses.fields(TranscriptionInfo)] == [
        "language", "language_probability", "duration", "duration_after_vad", "all_language_probs",
        "transcription_options", "vad_options",
    ]  # fmt: skip


@pytest.mark.parametrize("record", [talk().segments[0], talk().words[0], talk().segments[0].tokens[0], INFO, talk()])
def test_records_do_not_change(record: object) -> None:
    name = dataclasses.fields(record)[0].name  # type: ignore[arg-type]
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record, name, None)


def test_fields_as_items() -> None:
    found = talk()
    assert found["text"] == found.text and found["segments"][0]["text"] == " Hello there,"
    assert found["language"] == "en" and found["segments"][0]["words"][1]["word"] == " there,"
    for name in ("nothing", "_x", 0):
        with pytest.raises(KeyError):
            found[name]


def test_text_words_and_info() -> None:
    found = talk()
    assert found.text == "Hello there, friends & <others>."
    assert [word.word for word in found.words] == [" Hello", " there,", " friends", " &", " <others>."]
    for part in found.segments:
        assert part.text == "".join(word.word for word in part.words or ())
    assert (found.language, found.language_probability, found.duration) == ("en", 0.98, 3.5)
    empty = Transcription((), INFO)
    assert empty.text == "" and empty.words == () and empty.to_dict()["segments"] == []
    plain = Transcription((segment(0, 0, 1, "a"),), INFO)
    assert plain.words == () and "words" not in plain.to_dict()


def test_the_shape_of_verbose_json() -> None:
    found = talk().to_dict()
    assert list(found) == ["task", "language", "duration", "text", "segments", "words"]
    first = found["segments"][0]
    assert list(first) == [
        "id", "seek", "start", "end", "text", "tokens", "temperature", "avg_logprob", "compression_ratio",
        "no_speech_prob", "words",
    ]  # fmt: skip
    assert first["tokens"] == [15947, 456, 11] and first["id"] == 0 and first["temperature"] == 0.2
    assert found["words"][0] == {"word": " Hello", "start": 0.0, "end": 0.5, "probability": 0.9}
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_what_is_not_known_is_null() -> None:
    found = segment(0, 0, 1, "a", avg_logprob=-math.inf).to_dict()
    assert found["avg_logprob"] is None and found["compression_ratio"] is None and found["no_speech_prob"] is None


def test_a_part_of_a_character() -> None:
    whole = "é".encode()
    assert [Token(1, whole[:1], 1, 0).text, Token(1, whole, 1, 0).text] == ["\ufffd", "é"]


@pytest.mark.parametrize("text", ["", "a", "Hello there.", "la " * 200, "日本語" * 10])
def test_compression_ratio(text: str) -> None:
    raw = text.encode()
    assert compression_ratio(text) == len(raw) / len(zlib.compress(raw))


def test_a_loop_compresses_well() -> None:
    assert compression_ratio("thank you. " * 30) > 2.4 > compression_ratio("Ask not what your country can do for you.")


def test_info_as_plain_values() -> None:
    @dataclasses.dataclass
    class Options:
        beam_size: int
        temperature: tuple[float, ...]
        cancel: object

    info = dataclasses.replace(
        INFO, all_language_probs=(("en", 0.98), ("fr", 0.01)), transcription_options=Options(5, (0.0, math.inf), object)
    )
    found = info.to_dict()
    assert found["all_language_probs"] == [["en", 0.98], ["fr", 0.01]]
    assert found["transcription_options"]["temperature"] == [0.0, None]
    assert "object" in found["transcription_options"]["cancel"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_words_have_values() -> None:
    assert word(0, 1, " a") == Word(0, 1, " a", 0.9)
