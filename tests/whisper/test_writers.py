"""Formats are read back by other parsers; files are written atomically."""

from __future__ import annotations

import csv
import html
import io
import json
import os
import re
import stat
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import hypothesis
import pylrc
import pytest
import srt
import webvtt
from data.transcripts import INFO, segment, talk
from hypothesis import strategies as st

from cyllama.whisper import writers
from cyllama.whisper.results import Segment, Token, Transcription
from cyllama.whisper.writers import FORMATS, LINE_FORMATS, SegmentWriter, timestamp

NASTY = [
    " Plain text.",
    ' He said "yes", then left; a,b',
    " tab\there",
    " two\nlines\n\nand an empty one\r\nand more",
    " 00:00:01,000 --> 00:00:02,000",
    " <i>tags</i> & entities &amp; --> arrows",
    " [Music] 日本語, ça va? 😀 \u2028separator",
    "=SUM(A1)",
    "7",
    " null\0byte",
]


def nasty() -> Transcription:
    return Transcription(tuple(segment(i, i * 2.0, i * 2.0 + 1.5, text) for i, text in enumerate(NASTY)), INFO)


def flat(text: str) -> str:
    """Return a text on one line, without null characters."""
    return " ".join(line.strip() for line in text.replace("\0", "").splitlines() if line.strip())


# ---------------------------------------------------------------------------------------------- times


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "00:00:00.000"), (-0.2, "00:00:00.000"), (0.0004, "00:00:00.000"), (0.9995, "00:00:01.000"),
        (1.2346, "00:00:01.235"), (59.9995, "00:01:00.000"), (59.9994, "00:00:59.999"), (3599.9996, "01:00:00.000"),
        (3661.5, "01:01:01.500"), (36_000.25, "10:00:00.250"), (359_999.999, "99:59:59.999"), (360_000, "100:00:00.000"),
    ],
)  # fmt: skip
def test_timestamp_format(seconds: float, expected: str) -> None:
    assert timestamp(seconds) == expected
    assert timestamp(seconds, comma=True) == expected.replace(".", ",")


@pytest.mark.parametrize("seconds", [float("nan"), float("inf")])
def test_rejects_times_that_are_not_finite(seconds: float) -> None:
    with pytest.raises(ValueError, match=f"seconds is {seconds}"):
        timestamp(seconds)


@hypothesis.given(st.floats(0, 1e6))
def test_times_are_rounded_to_milliseconds(seconds: float) -> None:
    hours, minutes, rest = timestamp(seconds).split(":")
    assert int(minutes) < 60 and float(rest) < 60
    assert abs(int(hours) * 3600 + int(minutes) * 60 + float(rest) - seconds) <= 0.000501


def test_long_recordings_in_each_format() -> None:
    late = Transcription((segment(0, 36_000.9995, 36_061.5, " late"),), INFO)
    assert srt.parse(late.to_text("srt")).__next__().start == timedelta(seconds=36_001)
    assert webvtt.from_string(late.to_text("vtt"))[0].start == "10:00:01.000"
    assert late.to_text("tsv").splitlines()[1] == "36001000\t36061500\tlate"
    assert late.to_text("csv").splitlines()[1] == '36001000,36061500,"late"'
    assert late.to_text("lrc").splitlines()[1] == "[600:01.00]late"
    assert json.loads(late.to_text("json-full"))["transcription"][0]["offsets"] == {
        "from": 36_001_000,
        "to": 36_061_500,
    }


# -------------------------------------------------------------------------------------------- formats


def test_srt() -> None:
    found = list(srt.parse(nasty().to_text("srt")))
    assert [cue.index for cue in found] == list(range(1, len(NASTY) + 1))
    for i, (cue, text) in enumerate(zip(found, NASTY, strict=True)):
        assert (cue.start.total_seconds(), cue.end.total_seconds()) == (i * 2, i * 2 + 1.5)
        assert flat(cue.content) == flat(text).replace("-->", "->")
    assert found[3].content == "two\nlines\nand an empty one\nand more"


def test_vtt() -> None:
    text = nasty().to_text("vtt")
    assert text.startswith("WEBVTT\n\n") and text.count("-->") == len(NASTY)
    found = webvtt.from_string(text).captions
    assert len(found) == len(NASTY)
    for i, (cue, said) in enumerate(zip(found, NASTY, strict=True)):
        assert (cue.start_in_seconds, cue.end_in_seconds) == (i * 2, i * 2 + 1)
        assert flat(html.unescape(cue.raw_text)) == flat(said)
    zero = Transcription((segment(0, 1, 1, "a"),), INFO).to_text("vtt")
    assert "00:00:01.000 --> 00:00:01.001" in zero


def test_tsv() -> None:
    rows = list(csv.reader(io.StringIO(nasty().to_text("tsv")), delimiter="\t", quoting=csv.QUOTE_NONE))
    assert rows[0] == ["start", "end", "text"]
    assert rows[1:] == [[str(i * 2000), str(i * 2000 + 1500), flat(t).replace("\t", " ")] for i, t in enumerate(NASTY)]


def test_csv() -> None:
    rows = list(csv.DictReader(io.StringIO(nasty().to_text("csv"), newline=""), strict=True))
    assert [(int(row["start"]), int(row["end"])) for row in rows] == [
        (i * 2000, i * 2000 + 1500) for i in range(len(NASTY))
    ]
    assert [flat(row["text"]) for row in rows] == [flat(text) for text in NASTY]
    assert rows[1]["text"] == 'He said "yes", then left; a,b'


def test_lrc() -> None:
    lyrics = pylrc.parse(nasty().to_text("lrc"))
    assert lyrics.editor == "cyllama"
    timed = [line for line in lyrics if line.text]
    assert [line.time for line in timed] == [i * 2.0 for i in range(len(NASTY))]
    assert [flat(line.text) for line in timed] == [flat(text) for text in NASTY]
    nearly = Transcription((segment(0, 59.9951, 61, "a"),), INFO)
    assert nearly.to_text("lrc").endswith("[01:00.00]a\n")


def test_txt() -> None:
    assert nasty().to_text("txt").split("\n")[:-1] == [flat(text) for text in NASTY]


def test_json() -> None:
    found = json.loads(nasty().to_text("json"))
    assert found == nasty().to_dict()
    assert [part["text"] for part in found["segments"]] == NASTY
    assert "日本語" in nasty().to_text("json")


def test_json_full() -> None:
    found = json.loads(talk().to_text("json-full"))
    assert found["params"] == {"language": "en", "translate": False} and found["result"]["language"] == "en"
    first, second = found["transcription"]
    assert first["timestamps"] == {"from": "00:00:00,000", "to": "00:00:01,500"}
    assert first["offsets"] == {"from": 0, "to": 1500} and first["text"] == " Hello there,"
    assert first["tokens"][0] == {
        "text": " Hello", "timestamps": {"from": "00:00:00,000", "to": "00:00:00,500"},
        "offsets": {"from": 0, "to": 500}, "id": 15947, "p": 0.95, "plog": -0.05, "t_dtw": 30,
    }  # fmt: skip
    assert first["tokens"][1]["t_dtw"] == -1 and second["speaker_turn_next"] is True
    assert first["no_speech_prob"] == 0.01 and second["no_speech_prob"] is None
    assert [word["word"] for word in second["words"]] == [" friends", " &", " <others>."]


def test_json_full_groups_tokens_of_a_character() -> None:
    raw = "日é!".encode()
    tokens = [Token(i, raw[i : i + 1], 0.5, -0.7, i / 10, (i + 1) / 10) for i in range(len(raw))]
    bad = Token(99, b"\xff", 0.1, float("-inf"))
    talk = Transcription((segment(0, 0, 1, "日é!", token_details=(*tokens, bad, Token(100, b"\xe6", 0.1, -1))),), INFO)
    found = json.loads(talk.to_text("json-full"))["transcription"][0]["tokens"]
    assert [token["text"] for token in found] == ["日", "é", "!", "\ufffd", "\ufffd"]
    assert [token["id"] for token in found] == [0, 3, 5, 99, 100]
    assert found[0]["offsets"] == {"from": 0, "to": 300} and "offsets" not in found[3] and found[3]["plog"] is None


def test_subtitles_skip_empty_segments() -> None:
    given = [segment(0, 0, 1, " a"), segment(1, 1, 2, "  "), segment(2, 2, 3, " b")]
    assert [cue.index for cue in srt.parse(writers.srt(given))] == [1, 2]
    assert len(webvtt.from_string(writers.vtt(given)).captions) == 2
    assert writers.lrc(given).count("[00:") == 2
    assert writers.tsv(given).count("\n") == 4 and writers.csv(given).count("\n") == 4
    for name in LINE_FORMATS:
        assert isinstance(Transcription((), INFO).to_text(name), str)
    assert not list(srt.parse(writers.srt([]))) and writers.txt(iter([])) == ""


@hypothesis.given(st.lists(st.text(st.characters(codec="utf-8"), max_size=40), max_size=5))
def test_formats_keep_any_text(texts: list[str]) -> None:
    given = [segment(i, i, i + 0.5, text) for i, text in enumerate(texts)]
    talk = Transcription(tuple(given), INFO)
    shown = [flat(text) for text in texts if flat(text)]
    assert len(list(srt.parse(talk.to_text("srt")))) == len(shown)
    assert len(webvtt.from_string(talk.to_text("vtt")).captions) == len(shown)
    assert len(talk.to_text("txt").split("\n")) == len(texts) + 1
    rows = list(csv.reader(io.StringIO(talk.to_text("csv"), newline=""), strict=True))
    assert [flat(row[2]) for row in rows[1:]] == [flat(text) for text in texts]
    assert all(line.count("\t") == 2 for line in talk.to_text("tsv").split("\n")[:-1])
    assert [part["text"] for part in json.loads(talk.to_text("json"))["segments"]] == texts
    json.loads(talk.to_text("json-full"))


# ---------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("ending", ["txt", "srt", "vtt", "tsv", "csv", "json", "lrc", "SRT"])
def test_extension_is_the_format(tmp_path: Path, ending: str) -> None:
    path = talk().save(tmp_path / f"talk.{ending}")
    assert path.read_bytes().decode("utf-8") == talk().to_text(ending.lower()) == talk().to_text(ending)
    assert os.listdir(tmp_path) == [path.name]


def test_format_overrides_the_extension(tmp_path: Path) -> None:
    found = talk().save(str(tmp_path / "talk.json"), "json-full")
    assert "transcription" in json.loads(found.read_text(encoding="utf-8"))
    assert talk().save(tmp_path / "talk", ".srt").read_text().startswith("1\n")
    assert set(FORMATS) == {"txt", "srt", "vtt", "tsv", "csv", "lrc", "json", "json-full"}


@pytest.mark.parametrize(
    ("name", "format", "message"),
    [
        ("talk.doc", None, "path is 'talk.doc', expected the extension .txt"),
        ("talk", None, "path is 'talk', expected the extension"),
        ("talk.srt", "jsn", "format is 'jsn'; did you mean 'json'?"),
        ("talk.srt", "pdf-x-1", "format is 'pdf-x-1'; expected one of txt, srt"),
        ("talk.srt", 3, "format is 3; expected one of"),
    ],
)
def test_rejects_unknown_format(tmp_path: Path, name: str, format: object, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        talk().save(tmp_path / name, format)  # type: ignore[arg-type]
    assert not os.listdir(tmp_path)


def test_rejects_invalid_path(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no folder .*nowhere"):
        talk().save(tmp_path / "nowhere" / "talk.srt")
    (tmp_path / "folder.srt").mkdir()
    with pytest.raises(IsADirectoryError, match=r"folder.srt' is a directory"):
        talk().save(tmp_path / "folder.srt")
    assert os.listdir(tmp_path) == ["folder.srt"]


def test_failed_save_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "talk.srt"
    path.write_text("old")
    broken = Transcription((segment(0, 0, 1, "a\ud800b"),), INFO)  # cannot be written in UTF-8
    with pytest.raises(UnicodeEncodeError):
        broken.save(path)

    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(os, "replace", full)
        talk().save(path)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["talk.srt"]


def test_keeps_the_permissions_of_a_file(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    path = talk().save(tmp_path / "talk.srt")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)
    path.chmod(0o640)
    assert stat.S_IMODE(talk().save(path).stat().st_mode) == 0o640


@pytest.mark.parametrize("name", LINE_FORMATS)
def test_segment_writer_writes_each_segment(tmp_path: Path, name: str) -> None:
    out, path = io.StringIO(), tmp_path / f"talk.{name}"
    with SegmentWriter(out, name) as stream, SegmentWriter(path) as file:
        for i, part in enumerate(nasty().segments):
            stream.write(part)
            file.write(part)
            assert out.getvalue() == Transcription(nasty().segments[: i + 1], INFO).to_text(name)
            assert not path.exists()
    assert path.read_bytes().decode() == out.getvalue() == nasty().to_text(name)
    assert os.listdir(tmp_path) == [path.name] and not out.closed
    file.close()
    with pytest.raises(ValueError, match="the writer is closed"):
        file.write(nasty().segments[0])


def test_segment_writer_discards_the_file_of_a_failed_block(tmp_path: Path) -> None:
    def failing() -> Iterator[Segment]:
        yield segment(0, 0, 1, "a")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), SegmentWriter(tmp_path / "talk.srt") as out:
        for part in failing():
            out.write(part)
    assert not os.listdir(tmp_path)


def test_segment_writer_rejects_other_formats(tmp_path: Path) -> None:
    for target, format, message in (
        (tmp_path / "a.json", None, "format is 'json', expected one of txt"),
        (io.StringIO(), "json-full", "format is 'json-full', expected one of txt"),
        (io.StringIO(), None, "format is None"),
        (tmp_path / "a.doc", None, "path is 'a.doc'"),
    ):
        with pytest.raises(ValueError, match=message):
            SegmentWriter(target, format)
    assert not os.listdir(tmp_path)
