"""The models of these tests: SmolLM2, and a vision transformer with a projector for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import cyllama
from cyllama.llama import LlamaContext, LlamaContextParams, LlamaModel
from cyllama.llava import Llava, MtmdContext


@pytest.fixture(scope="module", autouse=True)
def _fixed_team(fixed_team: None) -> None:
    """Fix the number of threads: many of these tests compare texts."""


@pytest.fixture(scope="session")
def mmproj_path() -> Path:
    return cyllama.models.get("vision-dinov2s")


@pytest.fixture(scope="session")
def mtmd(mmproj_path: Path, smol_model: LlamaModel) -> MtmdContext:
    return MtmdContext(mmproj_path, smol_model)


@pytest.fixture
def ctx(smol_model: LlamaModel) -> Iterator[LlamaContext]:
    with LlamaContext(smol_model, LlamaContextParams(n_ctx=512, n_batch=256)) as context:
        yield context


@pytest.fixture(scope="session")
def llava(mmproj_path: Path, smol_path: Path) -> Iterator[Llava]:
    with Llava(smol_path, mmproj_path, n_ctx=1024, chat_template="chatml") as llava:
        yield llava
