"""Results: fields of faster-whisper and openai-whisper, conversions, and representations."""

from __future__ import annotations

import dataclasses
import html
import json
import math
import re
import zlib
from xml.etree import ElementTree

import pytest
from data.transcripts import INFO, segment, talk, word

from cyllama.whisper.results import (
    DetectedLanguage,
    Segment,
    Token,
    Transcription,
    TranscriptionInfo,
    Word,
    compression_ratio,
)


def test_fields_are_those_of_faster_whisper() -> None:
    assert [field.name for field in dataclasses.fields(Segment)][:11] == [
        "id", "seek", "start", "end", "text", "tokens", "avg_logprob", "compression_ratio", "no_speech_prob", "words",
        "temperature",
    ]  # fmt: skip
    assert [field.name for field in dataclasses.fields(Word)] == ["start", "end", "word", "probability"]
    assert [field.name for field in dataclasses.fields(TranscriptionInfo)] == [
        "language", "language_probability", "duration", "duration_after_vad", "all_language_probs",
        "transcription_options", "vad_options",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "record", [talk().segments[0], talk().words[0], talk().segments[0].token_details[0], INFO, talk()]
)
def test_results_are_immutable(record: object) -> None:
    name = dataclasses.fields(record)[0].name  # type: ignore[arg-type]
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record, name, None)


def test_fields_can_be_read_as_items() -> None:
    found = talk()
    assert found["text"] == found.text and found["segments"][0]["text"] == " Hello there,"
    assert found["language"] == "en" and found["segments"][0]["words"][1]["word"] == " there,"
    for name in ("nothing", "_x", 0):
        with pytest.raises(KeyError):
            found[name]


def test_transcription_joins_text_and_words() -> None:
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


def test_to_dict_is_verbose_json() -> None:
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


def test_unknown_values_are_none() -> None:
    found = segment(0, 0, 1, "a", avg_logprob=-math.inf).to_dict()
    assert found["avg_logprob"] is None and found["compression_ratio"] is None and found["no_speech_prob"] is None


def test_token_text_replaces_parts_of_characters() -> None:
    whole = "é".encode()
    assert [Token(1, whole[:1], 1, 0).text, Token(1, whole, 1, 0).text] == ["\ufffd", "é"]


@pytest.mark.parametrize("text", ["", "a", "Hello there.", "la " * 200, "日本語" * 10])
def test_compression_ratio_uses_zlib(text: str) -> None:
    raw = text.encode()
    assert compression_ratio(text) == len(raw) / len(zlib.compress(raw))


def test_repeated_text_has_a_high_compression_ratio() -> None:
    assert compression_ratio("thank you. " * 30) > 2.4 > compression_ratio("Ask not what your country can do for you.")


def test_info_to_dict_has_plain_values() -> None:
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


def test_words_are_equal_by_value() -> None:
    assert word(0, 1, " a") == Word(0, 1, " a", 0.9) != word(0, 2, " a")


# -------------------------------------------------------------------------------- representations

NASTY = " <b>bold</b> & | pipe *star* `code` [a](b) $x$"


def nasty() -> Transcription:
    return Transcription((segment(0, 0, 1.5, NASTY), segment(1, 3661.25, 3662, " two\nlines")), INFO)


def test_str_is_the_text() -> None:
    assert str(talk()) == talk().text == "Hello there, friends & <others>."
    assert f"{talk()}" == talk().text


def test_repr_is_short() -> None:
    assert repr(talk()) == "Transcription('Hello there, friends & <others>.', 'en', 3.50 s, 2 segments)"
    assert repr(talk().segments[0]) == "Segment(0, 0.00-1.50 s, ' Hello there,')"
    assert repr(talk().words[0]) == "Word(0.00-0.50 s, ' Hello', p=0.90)"
    assert repr(talk().segments[0].token_details[0]) == "Token(15947, ' Hello', p=0.95)"
    assert repr(INFO) == "TranscriptionInfo('en', p=0.98, 3.50 s)"
    assert repr(DetectedLanguage("fr", 0.5, (("fr", 0.5),))) == "DetectedLanguage('fr', p=0.50)"
    long = Transcription((segment(0, 0, 1, "word " * 1000),), INFO)
    assert len(repr(long)) < 100 and len(repr(long.segments[0])) < 100 and "1 segment)" in repr(long)


def test_html_is_an_escaped_table_with_times() -> None:
    root = ElementTree.fromstring(nasty()._repr_html_())
    rows = [[cell.text for cell in row] for row in root.iter("tr")]
    assert rows[0] == ["Start", "End", "Text"]
    assert rows[1] == ["00:00:00.000", "00:00:01.500", NASTY.strip()]
    assert rows[2] == ["01:01:01.250", "01:01:02.000", "two lines"]


def test_markdown_is_an_escaped_table_with_times() -> None:
    lines = nasty()._repr_markdown_().splitlines()
    assert lines[0] == "| Start | End | Text |" and len(lines) == 4
    assert lines[2].startswith("| 00:00:00.000 | 00:00:01.500 | &lt;b&gt;bold&lt;/b&gt; &amp; ")
    assert len(re.findall(r"(?<!\\)\|", lines[2])) == 4  # the borders of the cells
    unescape = re.sub(r"\\(.)", r"\1", html.unescape(lines[2].split(" | ", 2)[2].removesuffix(" |")))
    assert unescape == NASTY.strip()
