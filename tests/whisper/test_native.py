"""The same segments and times as whisper.cpp's own program, for the same settings."""

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


def native(bin_dir: Path, folder: Path, model: str, path: Path, *flags: str) -> list[tuple[float, float, str]]:
    """Segments of whisper-cli: start and end in seconds, and the text."""
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


def ours(result: Transcription) -> list[tuple[float, float, str]]:
    return [(segment.start, segment.end, segment.text) for segment in result.segments]


def same(found: list[tuple[float, float, str]], wanted: list[tuple[float, float, str]], duration: float) -> None:
    """An end behind the end of the sound is the end of the sound here."""
    assert [text for _, _, text in found] == [text for _, _, text in wanted]
    for (start, end, _), (native_start, native_end, _) in zip(found, wanted, strict=True):
        assert start == pytest.approx(min(native_start, duration), abs=1e-4)
        assert end == pytest.approx(min(native_end, duration), abs=1e-4)


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
def test_the_same_as_whisper_cli(
    whisper: Whisper, bin_dir: Path, tmp_path: Path, options: dict[str, Any], flags: tuple[str, ...]
) -> None:
    result = whisper(JFK, **options)
    same(ours(result), native(bin_dir, tmp_path, "tiny.en", JFK, *flags), result.duration)


def test_text_without_times(whisper: Whisper, bin_dir: Path, tmp_path: Path) -> None:
    """Where whisper-cli gives times that mean nothing."""
    result = whisper(JFK, without_timestamps=True)
    wanted = native(bin_dir, tmp_path, "tiny.en", JFK, *GREEDY, "-nt")
    assert [segment.text for segment in result.segments] == [text for _, _, text in wanted]
    assert (result.segments[0].start, result.segments[-1].end) == (0.0, 11.0)


@pytest.mark.parametrize("name", ["moon", "busy-en", "echo-en", "espeak-door", "espeak-car"])
def test_other_recordings(
    whisper: Whisper, bin_dir: Path, tmp_path: Path, speeches: dict[str, Speech], name: str
) -> None:
    result = whisper(speeches[name].path)
    same(
        ours(result), native(bin_dir, tmp_path, "tiny.en", wav(speeches[name].path, tmp_path), *GREEDY), result.duration
    )


@pytest.mark.parametrize("name", ["busy-fr", "new-user-fr", "no-service-fr", "espeak-park"])
def test_other_languages(base: Whisper, bin_dir: Path, tmp_path: Path, speeches: dict[str, Speech], name: str) -> None:
    speech = speeches[name]
    path = wav(speech.path, tmp_path)
    result = base(path, language=speech.language)
    same(ours(result), native(bin_dir, tmp_path, "base", path, *GREEDY, "-l", speech.language), result.duration)
    result = base(path)
    assert result.language == speech.language
    same(ours(result), native(bin_dir, tmp_path, "base", path, *GREEDY, "-l", "auto"), result.duration)
    result = base(path, language=speech.language, task="translate")
    flags = (*GREEDY, "-l", speech.language, "-tr")
    same(ours(result), native(bin_dir, tmp_path, "base", path, *flags), result.duration)


def test_ten_minutes(whisper: Whisper, bin_dir: Path, tmp_path: Path) -> None:
    """A piece of ten minutes, many windows with the text of the one before each."""
    path = tmp_path / "long.wav"
    soundfile.write(path, np.tile(jfk_int16(), 55)[: 600 * 16_000], 16_000)
    result = whisper(path)
    same(ours(result), native(bin_dir, tmp_path, "tiny.en", path, *GREEDY), result.duration)
    assert result.duration == 600.0 and len(result.segments) > 50


def wav(path: Path, folder: Path) -> Path:
    """As whisper-cli is to hear it: its own resampler is another one."""
    from cyllama.whisper import load_audio

    target = folder / "sound.wav"
    soundfile.write(target, load_audio(path), 16_000, subtype="FLOAT")
    return target
