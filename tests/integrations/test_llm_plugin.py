"""The plug-in for the package llm, through that package's command line and Python API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import llm
import numpy as np
import pytest
from click.testing import CliRunner, Result
from llm.cli import cli

from cyllama import models
from cyllama.pipelines import default_pool

NAME = "cyllama/smollm2-135m-instruct"
QUESTION = "What is the capital of France? Answer with one word."


@pytest.fixture(autouse=True)
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    yield tmp_path
    default_pool().close()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def test_command_line() -> None:
    assert NAME in run("models").output
    done = run("-m", NAME, QUESTION, "-o", "temperature", "0", "-o", "max_tokens", "24")
    assert done.exit_code == 0 and "Paris" in done.output
    wrong = run("-m", NAME, QUESTION, "-o", "temperature", "-1")
    assert wrong.exit_code == 1 and "temperature" in wrong.output


def test_conversation_and_usage() -> None:
    model = llm.get_model(NAME)
    talk = model.conversation()
    first = talk.prompt(QUESTION, system="You answer in one sentence.", temperature=0, max_tokens=24)
    assert "Paris" in first.text()
    assert first.usage().input > 20 and 0 < first.usage().output <= 24
    chunks = list(talk.prompt("And of Italy?", temperature=0, max_tokens=24))
    assert len(chunks) > 3 and "Rome" in "".join(chunks)
    (loaded,) = default_pool().loaded
    assert loaded.users == 0  # one model for both


def test_schema() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    response = llm.get_model(NAME).prompt(QUESTION, schema=schema, temperature=0, max_tokens=48)
    assert set(json.loads(response.text())) == {"city"}


def test_embeddings() -> None:
    model = llm.get_embedding_model("cyllama/minilm-l6")
    lunch, food, weather = map(np.array, model.embed_multi(["Lunch.", "I eat food.", "It rains."]))
    assert lunch.shape == (384,) and lunch @ food > lunch @ weather


def test_adds_files(tmp_path: Path) -> None:
    done = run("cyllama", "add", "tiny", str(models.get("tiny-random-llama")))
    assert (done.exit_code, done.output) == (0, "cyllama/tiny\n")
    assert llm.get_model("cyllama/tiny").prompt("a", max_tokens=3, n_ctx=256).usage().output == 3
    assert run("cyllama", "add", "none", str(tmp_path / "none.gguf")).exit_code == 2


def test_reports_errors(tmp_path: Path) -> None:
    (tmp_path / "junk.gguf").write_bytes(b"GGUF")
    assert run("cyllama", "add", "junk", str(tmp_path / "junk.gguf")).exit_code == 0
    done = run("-m", "cyllama/junk", "Hello")
    assert done.exit_code == 1 and done.output.startswith("Error: ") and "junk.gguf" in done.output
