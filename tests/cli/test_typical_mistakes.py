"""Typical mistakes of new users: the program prints at most three lines, which name the next step."""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from cyllama import models
from cyllama.cli import main

WIDTH, LINES = 120, 3
# Arguments, variables of the environment, exit code, and words of the next step.
MISTAKES: tuple[tuple[str, dict[str, str], int, str], ...] = (
    # misspelt
    ("chta", {}, 2, "did you mean chat?"),
    ("chat hi -m smollm2 --temprature 1", {}, 2, "did you mean --temperature?"),
    ("chat hi -m smolm2", {}, 1, "did you mean smollm2"),
    ("chat hi -m models/chat-q5.gguf", {}, 1, "did you mean models/chat-q4.gguf?"),
    # names of other programs
    ("chat hi -m llama3.2", {}, 1, "hf:bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M"),
    ("run llama3.2", {}, 2, "did you mean chat?"),
    ("chat hi", {}, 2, "-m smollm2-135m-instruct"),
    # wrong files
    ("chat hi -m none.gguf", {}, 1, "no such file: none.gguf; `cyllama models list`"),
    ("chat hi -m photo.png", {}, 1, "a PNG image, expected a model"),
    ("chat hi -m page.gguf", {}, 1, "an HTML page, not a model; download"),
    ("chat hi -m pointer.gguf", {}, 1, "git lfs pull"),
    ("chat hi -m empty.gguf", {}, 1, "is empty; download it again"),
    ("chat hi -m cut.gguf", {}, 1, "incomplete; download it again"),
    ("chat hi -m transformers", {}, 1, "convert_hf_to_gguf.py"),
    ("txt2img a -m page.gguf", {}, 1, "an HTML page, not a model; download"),
    ("transcribe notes.txt", {}, 1, "expected a file such as WAV"),
    ("transcribe talk.mp3", {}, 1, "no such file: talk.mp3; give the path"),
    ("transcribe talk.wav", {}, 1, "no such file: talk.wav; expected one such as a.wav"),
    ("transcribe none/a.wav", {}, 1, "there is no folder 'none'"),
    ("transcribe models", {}, 1, "a directory, expected an audio file"),
    ("img2img a -m tiny-shapes --image phto.png", {}, 1, "did you mean photo.png?"),
    ("complete -f note.txt -m smollm2", {}, 1, "did you mean notes.txt?"),
    ("describe notes.txt -m smollm2 -mm vision-dinov2s", {}, 1, "as an image"),
    ("chat hi -m https://huggingface.co/org/repo/resolve/main/a.gguf", {}, 1, "hf:org/repo/a.gguf"),
    # wrong kind of model
    ("chat hi -m tiny.en", {}, 1, "`cyllama transcribe -m`"),
    ("chat hi -m tiny-shapes", {}, 1, "`cyllama txt2img -m`"),
    ("chat hi -m vision-dinov2s", {}, 1, "-mm THIS"),
    ("chat hi -m minilm", {}, 1, "embed()"),
    ("tokenize hi -m tiny.en", {}, 1, "`cyllama transcribe -m`"),
    ("transcribe a.wav -m smollm2", {}, 1, "`cyllama chat -m`"),
    ("txt2img a -m smollm2", {}, 1, "`cyllama chat -m`"),
    ("txt2img a", {}, 1, "tiny-shapes"),
    ("upscale photo.png -m smollm2", {}, 1, "`cyllama chat -m`"),
    ("describe photo.png -m smollm2", {}, 1, "--mmproj"),
    # no memory
    ("chat hi -m smollm2 -c 10000000", {}, 1, "A smaller n_ctx"),
    # no network
    ("pull smollm2", {"CYLLAMA_CACHE": "{folder}/cache"}, 1, "check the network"),
    ("pull hf:org/repo:Q4_K_M", {}, 1, "check the network, or give a local file"),
    ("transcribe a.wav -m large-v3", {}, 1, "check the network, or give a local file"),
    # folders that cannot be written
    ("pull vocab-bert", {"CYLLAMA_CACHE": "{folder}/notes.txt/cache"}, 1, "set CYLLAMA_CACHE to a writable folder"),
    ("pull vocab-bert", {"HOME": "/proc", "CYLLAMA_CACHE": "", "XDG_CACHE_HOME": ""}, 1, "set CYLLAMA_CACHE"),
    ("txt2img a -m tiny-shapes -o none/a.png", {}, 1, "there is no folder 'none'"),
    ("transcribe a.wav -o /proc/texts", {}, 1, "/proc"),
    ("tokenize a -m tiny-random-llama", {"CYLLAMA_CONFIG": "none.toml"}, 1, "none.toml"),
    ("serve -c photo.png", {}, 1, "photo.png"),
    # missing extras
    ("completion bash", {"MISSING": "shtab"}, 1, "pip install shtab"),
    ("pull hf:org/repo", {"MISSING": "huggingface_hub"}, 1, "pip install huggingface_hub"),
    ("transcribe a.mp4", {"MISSING": "av"}, 1, "pip install av"),
    # the server
    ("serve -m smollm2 --host 0.0.0.0", {}, 1, "--allow-no-key"),
    ("serve -m smollm2 --port {port}", {}, 1, "{port}"),
)
CODE = """
import os, sys
for name in os.environ.get("MISSING", "").split():
    sys.modules[name] = None
from cyllama.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("new-user")
    (root / "models").mkdir()
    (root / "models" / "chat-q4.gguf").touch()
    (root / "page.gguf").write_text("<!DOCTYPE html><html><body>sign in</body></html>")
    (root / "pointer.gguf").write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 4\n")
    (root / "empty.gguf").touch()
    whole = models.get("tiny-random-llama").read_bytes()
    (root / "cut.gguf").write_bytes(whole[: len(whole) * 3 // 4])
    (root / "transformers").mkdir()
    (root / "transformers" / "config.json").write_text("{}")
    (root / "notes.txt").write_text("buy milk\n" * 100)
    Image.new("RGB", (64, 64)).save(root / "photo.png")
    soundfile.write(root / "a.wav", np.zeros(16_000, np.int16), 16_000)
    shutil.copy(root / "notes.txt", root / "a.mp4")
    return root


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.mark.parametrize(("line", "variables", "code", "words"), MISTAKES, ids=[case[0] for case in MISTAKES])
def test_mistake_is_answered_in_three_lines(
    line: str,
    variables: dict[str, str],
    code: int,
    words: str,
    folder: Path,
    port: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = {"folder": str(folder), "port": str(port)}
    if variables:
        found, shown = in_a_process(line.format(**names), variables, names)
    else:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "stdin", io.StringIO(""))
        found, shown = main(line.format(**names).split()), capsys.readouterr().err
    assert found == code, shown
    assert words.format(**names) in shown and "Traceback" not in shown, shown
    assert sum(-(-len(row) // WIDTH) for row in shown.splitlines()) <= LINES, shown


def in_a_process(line: str, variables: dict[str, str], names: dict[str, str]) -> tuple[int, str]:
    """Run the program with other variables of the environment."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_CONFIG_FILE": os.devnull,
        "HF_HOME": names["folder"] + "/hub",
        **{name: value.format(**names) for name, value in variables.items()},
    }
    done = subprocess.run(
        [sys.executable, "-c", CODE, *line.split()],
        cwd=names["folder"], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr


def test_there_are_twenty_mistakes() -> None:
    assert len(MISTAKES) >= 20
