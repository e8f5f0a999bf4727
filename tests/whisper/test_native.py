"""Segments and times are equal to those of whisper-cli with the same options."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from data.sounds import JFK, jfk_int16
from data.speech import Speech

from cyllama import models
from cyllama.whisper import Transcription, Whisper


def native_segments(bin_dir: Path, folder: Path, model: str, path: Path, *flags: str) -> list[tuple[float, float, str]]:
    """Return start, end and text of the segments of whisper-cli, in seconds."""
    out = folder / "native"
    command = [
        bin_dir / "whisper-cli",
        "-m",
        models.get(model),
        "-f",
        path,
        "-oj",
        "-of",
        out,
        "-np",
        "-t",
        "2",
        *flags,
    ]
    subprocess.run(command, check=True, capture_output=True)
    found = json.loads(out.with_suffix(".json").read_bytes().decode("utf-8", "replace"))["transcription"]
    return [(part["offsets"]["from"] / 1000, part["offsets"]["to"] / 1000, part["text"]) for part in found]


def segments_of(result: Transcription) -> list[tuple[float, float, str]]:
    return [(segment.start, segment.end, segment.text) for segment in result.segments]


def check_equal(found: list[tuple[float, float, str]], wanted: list[tuple[float, float, str]], duration: float) -> None:
    """Compare the text, and the times of segments that begin and end with the same text: pauses split segments here.

    The engine's times of these segments are up to a pause apart from those of their words.
    """
    assert "".join(text for _, _, text in found).split() == "".join(text for _, _, text in wanted).split()
    assert all(0 <= start < end <= duration for start, end, _ in found)
    assert [end for _, end, _ in found] == sorted(end for _, end, _ in found)
    if len(found) == len(wanted):
        for (start, end, _), (native_start, native_end, _) in zip(found, wanted, strict=True):
            assert start >= native_start - 0.5 and end <= native_end + 0.5


GREEDY = ("-bs", "1", "-bo", "5")


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({}, GREEDY),
        ({"beam_size": 5}, ("-bs", "5")),
        ({"temperature": 0.0}, (*GREEDY, "-nf")),
        ({"max_segment_chars": 30}, (*GREEDY, "-ml", "30", "-sow")),
        ({"max_segment_chars": 12, "split_on_word": False}, (*GREEDY, "-ml", "12")),
        ({"initial_prompt": "A speech of the president"}, (*GREEDY, "--prompt", " A speech of the president")),
        ({"audio_ctx": 768}, (*GREEDY, "-ac", "768")),
        ({"suppress_tokens": [-1]}, (*GREEDY, "-sns")),
        ({"suppress_regex": "[Aa]sk"}, (*GREEDY, "--suppress-regex", "[Aa]sk")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_segments_equal_whisper_cli(
    whisper: Whisper, bin_dir: Path, tmp_path: Path, options: dict[str, Any], flags: tuple[str, ...]
) -> None:
    result = whisper(JFK, **options)
    check_equal(segments_of(result), native_segments(bin_dir, tmp_path, "tiny.en", JFK, *flags), result.duration)


def test_text_without_timestamps_equals_whisper_cli(whisper: Whisper, bin_dir: Path, tmp_path: Path) -> None:
    result = whisper(JFK, without_timestamps=True)
    wanted = native_segments(bin_dir, tmp_path, "tiny.en", JFK, *GREEDY, "-nt")
    assert [segment.text for segment in result.segments] == [text for _, _, text in wanted]
    assert (result.segments[0].start, result.segments[-1].end) == (0.0, 11.0)


@pytest.mark.parametrize("name", ["moon", "busy-en", "echo-en", "espeak-door", "espeak-car"])
def test_other_recordings(
    whisper: Whisper, bin_dir: Path, tmp_path: Path, speeches: dict[str, Speech], name: str
) -> None:
    result = whisper(speeches[name].path)
    check_equal(
        segments_of(result),
        native_segments(bin_dir, tmp_path, "tiny.en", resampled_wav(speeches[name].path, tmp_path), *GREEDY),
        result.duration,
    )


@pytest.mark.parametrize("name", ["busy-fr", "espeak-park"])
def test_other_languages_equal_whisper_cli(
    base: Whisper, bin_dir: Path, tmp_path: Path, speeches: dict[str, Speech], name: str
) -> None:
    speech = speeches[name]
    path = resampled_wav(speech.path, tmp_path)
    result = base(path, language=speech.language)
    check_equal(
        segments_of(result),
        native_segments(bin_dir, tmp_path, "base", path, *GREEDY, "-l", speech.language),
        result.duration,
    )
    result = base(path)
    assert result.language == speech.language
    check_equal(
        segments_of(result), native_segments(bin_dir, tmp_path, "base", path, *GREEDY, "-l", "auto"), result.duration
    )
    result = base(path, language=speech.language, task="translate")
    flags = (*GREEDY, "-l", speech.language, "-tr")
    check_equal(segments_of(result), native_segments(bin_dir, tmp_path, "base", path, *flags), result.duration)


def test_many_windows_equal_whisper_cli(whisper: Whisper, bin_dir: Path, tmp_path: Path) -> None:
    """Each window has the text of the one before as its context."""
    path = tmp_path / "long.wav"
    soundfile.write(path, np.tile(jfk_int16(), 11)[: 120 * 16_000], 16_000)
    result = whisper(path)
    check_equal(segments_of(result), native_segments(bin_dir, tmp_path, "tiny.en", path, *GREEDY), result.duration)
    assert result.duration == 120.0 and len(result.segments) > 10


def resampled_wav(path: Path, folder: Path) -> Path:
    """Return a recording at 16,000 Hz: whisper-cli has another resampler."""
    from cyllama.whisper import load_audio

    target = folder / "audio.wav"
    soundfile.write(target, load_audio(path), 16_000, subtype="FLOAT")
    return target
