"""The documentation: Python code runs and prints what its reader expects; commands, names and links exist."""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from data.parakeet import parakeet_model
from data.sounds import JFK
from data.voice import speak
from PIL import Image, ImageDraw

from cyllama import models
from cyllama.cli import COMMANDS, command_parser

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs" / "howto").glob("*.md")))
DOCUMENTS = (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
TEMPLATE = ROOT / "thirdparty" / "llama.cpp" / "models" / "templates" / "Qwen-Qwen2.5-7B-Instruct.jinja"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to a folder with the files that the pages use: a speech under other names, a model, images."""
    samples, rate = soundfile.read(JFK, dtype="int16")
    for name in ("talk.wav", "monday.wav", "tuesday.wav", "interview.flac"):
        soundfile.write(tmp_path / name, np.asarray(samples), rate)
    soundfile.write(tmp_path / "call.wav", np.stack([samples, samples // 8], axis=1), rate)
    shutil.copy(JFK.with_suffix(".mp3"), tmp_path / "talk.mp3")
    (tmp_path / "model.gguf").symlink_to(models.get("tiny-random-llama"))
    (tmp_path / "ggml-parakeet-tdt-0.6b-v3.bin").symlink_to(parakeet_model())
    shutil.copy(TEMPLATE, tmp_path / "tools.jinja")
    speak("A large red circle on white.", tmp_path / "red-circle.wav")
    speak("Please tell me the capital of France.", tmp_path / "question.wav")
    for name, colour in (("circle", "red"), ("square", "blue")):
        image = Image.new("RGB", (224, 224), "white")
        draw = ImageDraw.Draw(image)
        (draw.ellipse if name == "circle" else draw.rectangle)((60, 60, 164, 164), colour)
        image.save(tmp_path / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# What a block of code prints: a pattern of the code, and a pattern of its output. Every page has at least one such block.
PRINTS = {
    r"capital of France": r"\bParis\b",
    r"Count from one to five": r"1\..*2\..*3\.",
    r"tools=\[add\]": r"\badd\b",
    r"prompt_cache=": r"^(\d+) of \1 tokens computed\n1 of \1 tokens computed$",
    r"\.embed\(": r"^0\.[5-9]\d* -?0\.[0-4]",
    r"diagnosis\(\)": r"'llama'",
    r"cyllama\.devices\(\)": r"'type': 'cpu'",
    r"seed=42": r"^\[42\]",
    r"tiny-shapes\", seed=1\)": r"Seed: 1\b",
    r"transcribe\(SPEECH": r"(?i)large red circle",
    r"What shape is this": r"(?i)circle",
    r"HiresParams": r"\(\d+, \d+\)",
    r"on_step=": r"^1 \d+$",
    r"speech_to_image\((\"red-circle.wav|SPEECH).*\.prompt": r"(?i)red circle",
    r"supports\(": r"^True False$",
    r"timings\.cache_n": r"^[1-9]\d*$",
    r"\A(?!.*parakeet).*(talk\.mp3|monday\.wav)": r"(?i)your country",
    r"whisper\.architecture": r"^parakeet$",
    r"channel_speakers": r"^0 .*Americans",
    r"realtime\.connect": r"(?i)for you.*your country",
    r"/sdapi/v1/txt2img": r"^\(128, 128\) a large red circle",
    r"log\.set_level": r"^INFO cyllama\.llama: .*n_ctx",
    r"/metrics": r"^cyllama_requests_total.*POST.* 1\n.*^llamacpp:tokens_predicted_total 4$",
    r"found\.prompt_n": r"^\d\d \+ 0 tokens of the prompt, 16 generated$",
    r"for kind in .*estimate_memory": r"^f16: 180 MiB.*\nq8_0: \d\d MiB",
    r"print\(config\.host": r"^127\.0\.0\.1 \d+$",
}


def code_of(page: Path) -> list[str]:
    """Return the blocks of Python code of a page."""
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


def expected(code: str) -> list[str]:
    """Return the patterns that the output of a block of code matches."""
    return [output for pattern, output in PRINTS.items() if re.search(pattern, code, re.DOTALL)]


@pytest.mark.parametrize("page", [page for page in PAGES if code_of(page)], ids=lambda page: page.stem)
def test_code_prints_what_its_page_promises(page: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The blocks of a page share their names, as a reader runs them one after another."""
    if page.name == "README.md":  # its reader has an empty folder
        for path in folder.iterdir():
            path.unlink()
    names: dict[str, object] = {"__name__": "page"}
    checked = 0
    for block in code_of(page):
        exec(compile(block, page.stem, "exec"), names)
        output = capsys.readouterr().out
        assert output, block
        for pattern in expected(block):
            assert re.search(pattern, output, re.MULTILINE | re.DOTALL), f"{block}\nprinted {output!r}, not {pattern!r}"
            checked += 1
    assert checked, f"no pattern of PRINTS is about {page.name}"


def test_every_expectation_is_about_some_code() -> None:
    codes = [code for page in PAGES for code in code_of(page)]
    assert [pattern for pattern in PRINTS if not any(re.search(pattern, code, re.DOTALL) for code in codes)] == []


def test_pip_install_cyllama_is_only_mentioned_as_a_warning() -> None:
    """The name on the index belongs to another project. Only the two pages that say so contain the command."""
    texts = [path for pattern in ("*.py", "*.pyx", "*.html", "*.js") for path in (ROOT / "src").rglob(pattern)]
    texts += [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.py")]
    found = {path.name for path in texts if re.search(r"pip install\s+['\"]?cyllama\b", path.read_text())}
    assert found == {"README.md", "install.md"}


def commands_of(page: Path) -> list[str]:
    """Return the `cyllama` commands of a page's shell blocks, without comments and redirections."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [re.split(r"\s(?:#|>)", line)[0] for line in lines if line.startswith("cyllama ")]


@pytest.mark.parametrize("command", [command for page in PAGES for command in commands_of(page)])
def test_command_parses(command: str) -> None:
    _, name, *arguments = shlex.split(command)
    command_parser(name).parse_args(arguments)


def test_commands_in_the_text_exist() -> None:
    names = {name for page in DOCUMENTS for name in re.findall(r"`cyllama ([a-z][\w-]*)", page.read_text())}
    assert len(names) > 10
    assert names <= {*COMMANDS, "help"}


def resolves(name: str) -> bool:
    """Return whether a dotted name is a module or an attribute of one."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def test_names_in_the_text_exist() -> None:
    names = {
        name
        for page in DOCUMENTS
        for name in re.findall(r"`[^`\n]*?(?<![/\w])(cyllama(?:\.\w+)+)(?![\w*])", page.read_text())
    }
    assert len(names) > 20
    assert {name for name in names if not resolves(name)} <= {"cyllama.backends"}  # a group of entry points


def test_links_to_files_exist() -> None:
    links = [(page, link) for page in DOCUMENTS for link in re.findall(r"\]\(([^)#]+)", page.read_text())]
    files = [(page, link) for page, link in links if not link.startswith("http")]
    assert len(files) > 30
    assert [(page.name, link) for page, link in files if not (page.parent / link).exists()] == []


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        target for page in DOCUMENTS for target in re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.MULTILINE)
    }
    assert len(named) > 8
    assert named <= targets
