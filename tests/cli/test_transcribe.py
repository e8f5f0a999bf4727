"""``cyllama transcribe`` and ``cyllama whisper``: output, files and exit codes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import srt
from data.sounds import JFK, encoded, jfk_float32

from cyllama import models
from cyllama.cli import main
from cyllama.cli.transcribe import _outputs
from cyllama.whisper import TranscribeOptions, VadOptions

TEXT = "And so my fellow Americans ask not what your country can do for you ask what you can do for your country."


def test_prints_segments_with_times(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe", str(JFK)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert all(re.match(r"\[00:00:\d\d\.\d{3} --> 00:00:\d\d\.\d{3}\]  ", line) for line in out)
    assert " ".join(line.split("]  ")[1] for line in out) == TEXT


def test_writes_files_in_all_formats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    second = tmp_path / "second.mp3"
    second.write_bytes(JFK.with_suffix(".mp3").read_bytes())
    folder = tmp_path / "new" / "folder"
    arguments = ["transcribe", str(JFK), str(second), "--format", "srt,json,txt", "--output-dir", str(folder), "-q"]
    assert main([*arguments, "--word-timestamps", "--clip-timestamps", "0,4", "--audio-ctx", "256"]) == 0
    assert capsys.readouterr() == ("", "")
    assert sorted(path.name for path in folder.iterdir()) == [
        "jfk.json", "jfk.srt", "jfk.txt", "second.json", "second.srt", "second.txt",
    ]  # fmt: skip
    assert len(list(srt.parse((folder / "jfk.srt").read_text()))) >= 1
    assert json.loads((folder / "jfk.json").read_text())["words"]


def test_files_of_one_name_have_own_outputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / folder / name for folder, name in (("a", "talk.wav"), ("b", "talk.wav"), ("b", "talk-2.wav"))]
    for seconds, file in enumerate(files, 3):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(encoded(jfk_float32()[: 16_000 * seconds], 16_000, "WAV", "PCM_16"))
    out = tmp_path / "out"
    arguments = ["transcribe", *map(str, files), "-f", "json", "-o", str(out), "-q", "--audio-ctx", "256"]
    assert main(arguments) == 0
    durations = {path.name: json.loads(path.read_text())["duration"] for path in out.iterdir()}
    assert durations == {"talk.json": 3.0, "talk-3.json": 4.0, "talk-2.json": 5.0}
    assert "talk-3" in capsys.readouterr().err


def test_files_of_one_name_and_other_endings_have_own_outputs(tmp_path: Path) -> None:
    names = [tmp_path / name for name in ("talk.wav", "talk.mp3", "talk.flac")]
    assert [path.name for path in _outputs(list(map(str, names)), None)] == ["talk", "talk-2", "talk-3"]
    assert [path.name for path in _outputs(["-", "-"], None)] == ["stdin", "stdin-2"]


def test_an_output_folder_without_a_format_gets_text(tmp_path: Path) -> None:
    arguments = ["--clip-timestamps", "0,4", "--audio-ctx", "256", "-q"]
    assert main(["transcribe", str(JFK), "-o", str(tmp_path), *arguments]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["jfk.txt"]


def test_transcribes_a_truncated_file_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = encoded(jfk_float32(), 16_000, "FLAC", "PCM_16")
    cut = tmp_path / "cut.flac"
    cut.write_bytes(raw[: len(raw) // 2])
    assert main(["transcribe", str(cut), "-f", "txt,json", "-q", "--audio-ctx", "400"]) == 3
    assert "my fellow Americans" in (tmp_path / "cut.txt").read_text()
    err = capsys.readouterr().err
    assert "cut.flac" in err and "truncated at" in err and len(err.splitlines()) == 1
    (tmp_path / "none.wav").write_bytes(b"no audio")
    assert main(["transcribe", str(cut), str(tmp_path / "none.wav"), "-q", "--audio-ctx", "400"]) == 1


def test_every_option_is_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transcribe", "--help-all"]) == 0
    text = capsys.readouterr().out
    for option in dataclasses.fields(TranscribeOptions):
        if option.name != "vad_parameters":
            assert f"--{option.name.replace('_', '-')}" in text
    for option in dataclasses.fields(VadOptions):
        assert f"--vad-{option.name.replace('_', '-')}" in text


def test_vad_option_turns_the_filter_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["transcribe", str(JFK), "--vad-threshold", "0.4", "--clip-timestamps", "0,8", "--temperature", "0"]) == 0
    )
    assert capsys.readouterr().out.startswith("[00:00:00.")


def test_reads_standard_input(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cyllama", "transcribe", "-", "-f", "vtt", "-q"]
    done = subprocess.run(command, input=JFK.read_bytes(), cwd=tmp_path, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (tmp_path / "stdin.vtt").read_text().startswith("WEBVTT")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["/nowhere/talk.wav"], 1, "talk.wav"),
        ([str(JFK), "-m", "tinny.en"], 1, "tiny.en"),
        ([str(JFK), "--format", "docx"], 1, "docx"),
        ([str(JFK), "--language", "elvish"], 1, "elvish"),
        ([str(JFK), "--beam-size", "99"], 1, "beam_size"),
        ([str(JFK), "--beam-size", "many"], 2, "many"),
        ([str(JFK), "--unknown"], 2, "--unknown"),
        ([], 2, "FILE"),
    ],
)
def test_error_message_and_exit_code(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["transcribe", *arguments]) == code
    captured = capsys.readouterr()
    assert message in captured.err and "Traceback" not in captured.err


def test_continues_after_a_bad_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"no audio")
    assert main(["transcribe", str(bad), str(JFK), "-f", "txt", "-o", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert "bad.wav" in captured.err and len(captured.err.splitlines()) == 1
    assert (tmp_path / "jfk.txt").read_text().split() == TEXT.split()


def test_quantize_and_languages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "small.bin"
    assert main(["whisper", "quantize", "tiny.en", str(target), "-t", "q5_0"]) == 0
    assert "MB" in capsys.readouterr().out
    assert target.stat().st_size < 0.5 * models.get("tiny.en").stat().st_size
    assert main(["transcribe", str(JFK), "-m", str(target), "--clip-timestamps", "0,4", "--audio-ctx", "256"]) == 0
    assert "fellow Americans" in capsys.readouterr().out
    assert main(["whisper", "quantize", str(target), str(tmp_path / "again.bin")]) == 1
    assert main(["whisper", "languages"]) == 0
    assert "german" in capsys.readouterr().out


def test_shows_progress_on_a_terminal(tmp_path: Path) -> None:
    master, slave = os.openpty()
    command = [sys.executable, "-m", "cyllama", "transcribe", str(JFK)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=slave, cwd=tmp_path) as process:
        os.close(slave)
        assert process.stdout is not None
        out = process.stdout.read().decode()
        shown = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while part := os.read(master, 4096):
                shown += part
    os.close(master)
    assert process.returncode == 0 and "fellow Americans" in out
    assert b"jfk.wav [" in shown and b"100%" in shown and shown.endswith(b"\033[K")
