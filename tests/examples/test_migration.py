"""The programs of docs/howto/migration.md: each runs here, and differs from its original by the lines that it shows."""

from __future__ import annotations

import difflib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import srt
from data.model_files import with_template
from data.sounds import JFK
from PIL import Image
from sd.reading import read
from server.running import Server, running_server

from cyllama import models

ROOT = Path(__file__).resolve().parents[2]
BEFORE, AFTER = (ROOT / "examples" / "migration" / name for name in ("before", "after"))
PAGE = (ROOT / "docs" / "howto" / "migration.md").read_text()
PROGRAMS = sorted(path.stem for path in BEFORE.glob("*.py"))
TEMPLATE = ROOT / "thirdparty" / "llama.cpp" / "models" / "templates" / "Qwen-Qwen2.5-7B-Instruct.jinja"
CHAT_MODEL = "smollm2-135m-instruct"
QUESTIONS = "Please tell me the capital of France.\nAnd the capital of Italy?\n"
CAPITALS = r"Paris[^\n]*\n.*Rome"
SUM = r"add\(\{'a': 2, 'b': 3\}\) = 5\n.*answer: .*5"


@pytest.fixture(scope="module")
def tool_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat model whose file has a template with tools, as larger models have one."""
    return with_template(CHAT_MODEL, TEMPLATE.read_text(), tmp_path_factory.mktemp("model"))


def run(program: Path, *arguments: object, folder: Path, text: str = "", **variables: str) -> str:
    """Run a program with warnings as errors, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program), *map(str, arguments)],
        input=text, capture_output=True, text=True, cwd=folder, env={**os.environ, **variables}, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


# ------------------------------------------------------------------------------------------ lines


def lines_of(name: str) -> tuple[list[str], list[str]]:
    before, after = ((folder / f"{name}.py").read_text().splitlines() for folder in (BEFORE, AFTER))
    return before, after


def changed(name: str) -> int:
    """Return the number of lines to change, add or remove."""
    matcher = difflib.SequenceMatcher(None, *lines_of(name), autojunk=False)
    return sum(max(c[2] - c[1], c[4] - c[3]) for c in matcher.get_opcodes() if c[0] != "equal")


@pytest.mark.parametrize("name", PROGRAMS)
def test_page_shows_the_changed_lines(name: str) -> None:
    lines = difflib.unified_diff(*lines_of(name), n=0, lineterm="")
    shown = [line for line in lines if not line.startswith(("---", "+++", "@@"))]
    assert "```diff\n" + "\n".join(shown) + "\n```" in PAGE


def test_page_counts_the_changed_lines() -> None:
    rows = re.findall(r"^\| .*`(\w+)\.py`.* \| (\d+) \| (\d+) \|$", PAGE, re.MULTILINE)
    assert rows == [(name, str(len(lines_of(name)[0])), str(changed(name))) for name, *_ in rows]
    assert sorted(name for name, *_ in rows) == PROGRAMS


# --------------------------------------------------------------------------------------- programs


def test_chat_with_tools_and_embeddings(tmp_path: Path) -> None:
    shown = run(AFTER / "chat_with_tools.py", models.get(CHAT_MODEL), models.get("minilm-l6"), folder=tmp_path)
    assert re.search(r"^call: count_stock\((apples|pears)\)\n.*\b(12|3)\b.*\nnote: Pears", shown, re.DOTALL), shown


def test_subtitles(tmp_path: Path) -> None:
    shown = run(AFTER / "subtitles.py", JFK, tmp_path / "talk.srt", folder=tmp_path)
    assert re.search(r"^language: en, 11 s\n\[0\.\d to ", shown), shown
    cues = list(srt.parse((tmp_path / "talk.srt").read_text()))
    assert "ask not what your country can do for you" in " ".join(cue.content for cue in cues)
    assert cues[-1].end.total_seconds() == pytest.approx(10.5, abs=1)


def test_pictures(tmp_path: Path) -> None:
    assert run(AFTER / "pictures.py", "tiny-shapes", folder=tmp_path) == "(128, 128), 2 changed\n"
    found = {path.stem: read(np.asarray(Image.open(path))).things for path in tmp_path.glob("*.png")}
    things = {name: [(thing.colour, thing.shape) for thing in seen] for name, seen in found.items()}
    assert things == {
        "first": [("red", "circle")],
        "changed-1": [("blue", "circle")],
        "changed-2": [("blue", "circle")],
    }


TORCH = """
class Generator:
    def manual_seed(self, seed):
        self.initial_seed = lambda: seed
        return self

class dtype:
    def __str__(self):
        return "torch.float32"

float32 = dtype()
"""  # what the program uses of torch, which the tests do not install


def test_pictures_need_another_import_only_with_torch(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text(TORCH)
    text = (BEFORE / "pictures.py").read_text()
    (tmp_path / "pictures.py").write_text(text.replace("from diffusers ", "from cyllama.compat.diffusers "))
    assert run(tmp_path / "pictures.py", "tiny-shapes", folder=tmp_path) == "(128, 128), 2 changed\n"
    kept = np.asarray(Image.open(tmp_path / "first.png"))
    run(AFTER / "pictures.py", "tiny-shapes", folder=tmp_path)
    np.testing.assert_array_equal(kept, np.asarray(Image.open(tmp_path / "first.png")))


def test_chat_loop_in_process(tmp_path: Path) -> None:
    shown = run(AFTER / "chat_loop.py", CHAT_MODEL, folder=tmp_path, text=QUESTIONS)
    assert re.search(CAPITALS, shown, re.DOTALL), shown


def test_agent_in_process(tool_model: Path, tmp_path: Path) -> None:
    shown = run(AFTER / "agent.py", tool_model, folder=tmp_path)
    assert re.search(SUM, shown, re.DOTALL), shown


# ------------------------------------------------------------------------------------- the server


@pytest.fixture(scope="module")
def server(tool_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start a server whose models have the names that the unchanged programs use."""
    file = tmp_path_factory.mktemp("server") / "models.toml"
    file.write_text(
        f'[models.chat]\nmodel = "{CHAT_MODEL}"\naliases = ["llama3.2"]\nn_ctx = 2048\n'
        f'[models.tools]\nmodel = "{tool_model}"\naliases = ["gpt-4o-mini"]\nn_ctx = 2048\n'
    )
    with running_server("--config", file) as found:
        yield found


def test_chat_loop_runs_unchanged_with_the_server(server: Server, tmp_path: Path) -> None:
    shown = run(BEFORE / "chat_loop.py", "llama3.2", folder=tmp_path, text=QUESTIONS, OLLAMA_HOST=server.url)
    assert re.search(CAPITALS, shown, re.DOTALL), shown


def test_agent_runs_unchanged_with_the_server(server: Server, tmp_path: Path) -> None:
    variables = {"OPENAI_BASE_URL": f"{server.url}/v1", "OPENAI_API_KEY": "none"}
    shown = run(BEFORE / "agent.py", "gpt-4o-mini", folder=tmp_path, **variables)
    assert re.search(SUM, shown, re.DOTALL), shown
