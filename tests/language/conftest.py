"""Models that the tests of `LLM` share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cyllama.llama.llm import LLM

CHAT_MODEL = "smollm2-135m-instruct"
TEMPLATES = Path(__file__).resolve().parents[2] / "thirdparty" / "llama.cpp" / "models" / "templates"


@pytest.fixture(scope="module", autouse=True)
def _fixed_team(fixed_team: None) -> None:
    """Use a fixed number of threads: many of these tests compare texts."""


@pytest.fixture(scope="session")
def llm() -> Iterator[LLM]:
    with LLM(CHAT_MODEL, n_ctx=4096, n_parallel=4) as model:
        yield model


@pytest.fixture(scope="session")
def tool_llm() -> Iterator[LLM]:
    """The same weights with a template of the same family (ChatML) that supports tools."""
    template = (TEMPLATES / "Qwen-Qwen2.5-7B-Instruct.jinja").read_text()
    with LLM(CHAT_MODEL, n_ctx=4096, n_parallel=2, chat_template=template) as model:
        yield model
