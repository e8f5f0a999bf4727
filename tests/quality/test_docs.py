"""The Python code of README and of the how-to pages runs as it stands."""

from __future__ import annotations

import re
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

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs" / "howto").glob("*.md")))
TEMPLATE = ROOT / "thirdparty" / "llama.cpp" / "models" / "templates" / "Qwen-Qwen2.5-7B-Instruct.jinja"
CODE = {page.stem: re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL) for page in PAGES}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the pages speak of: a speech under other names, a model, pictures."""
    samples, rate = soundfile.read(JFK, dtype="int16")
    for name in ("talk.wav", "monday.wav", "tuesday.wav", "interview.flac"):
        soundfile.write(tmp_path / name, np.asarray(samples), rate)
    shutil.copy(JFK.with_suffix(".mp3"), tmp_path / "talk.mp3")
    (tmp_path / "model.gguf").symlink_to(models.get("tiny-random-llama"))
    (tmp_path / "ggml-parakeet-tdt-0.6b-v3.bin").symlink_to(parakeet_model())
    shutil.copy(TEMPLATE, tmp_path / "tools.jinja")
    speak("A large red circle on white.", tmp_path / "red-circle.wav")
    speak("Please tell me the capital of France.", tmp_path / "question.wav")
    for name, colour in (("circle", "red"), ("square", "blue")):
        picture = Image.new("RGB", (224, 224), "white")
        draw = ImageDraw.Draw(picture)
        (draw.ellipse if name == "circle" else draw.rectangle)((60, 60, 164, 164), colour)
        picture.save(tmp_path / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", [page for page, blocks in CODE.items() if blocks])
def test_code_of_the_pages(page: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each block prints something; those of a page go on from each other."""
    names: dict[str, object] = {"__name__": "page"}
    for block in CODE[page]:
        exec(compile(block, page, "exec"), names)
        assert capsys.readouterr().out


def test_no_advice_installs_the_package_of_that_name_on_the_index() -> None:
    """The name belongs to another project there; only the two pages that say so may write the command."""
    texts = [path for pattern in ("*.py", "*.pyx", "*.html", "*.js") for path in (ROOT / "src").rglob(pattern)]
    texts += [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.py")]
    found = {path.name for path in texts if re.search(r"pip install\s+['\"]?cyllama\b", path.read_text())}
    assert found == {"README.md", "install.md"}
