"""Models that the tests share. They are real: fetched on first use, kept in the cache."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from fast import is_fast

import cyllama
from cyllama.llama import LlamaContext, LlamaContextParams, LlamaModel

ROOT = Path(__file__).resolve().parent.parent

# No test downloads from the Hugging Face hub.
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-variants", action="store_true", help="test the page in all sizes and colour schemes")
    parser.addoption("--screenshots", metavar="FOLDER", help="where pictures of the page go (default: nowhere)")


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if is_fast(item):
            item.add_marker("fast")


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """A shell lets its background jobs ignore Ctrl-C, and their children inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def fixed_team() -> Iterator[None]:
    """Here and in the programs that are started: the number of threads, on which the last bits and so now and then a
    word depend, does not follow the load."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GGML_TEAM_FIXED", "1")
        cyllama.set_threads()
        yield
    cyllama.set_threads()


@pytest.fixture(scope="session")
def tiny_path() -> Path:
    """A llama model of 3 MB with random weights and a real vocabulary."""
    return cyllama.models.get("tiny-random-llama")


@pytest.fixture(scope="session")
def smol_path() -> Path:
    """SmolLM2 135M Instruct, a real language model."""
    return cyllama.models.get("smollm2-135m-instruct")


@pytest.fixture(scope="session")
def tiny_model(tiny_path: Path) -> LlamaModel:
    return LlamaModel(tiny_path)


@pytest.fixture(scope="session")
def smol_model(smol_path: Path) -> LlamaModel:
    return LlamaModel(smol_path)


@pytest.fixture
def tiny_ctx(tiny_model: LlamaModel) -> Iterator[LlamaContext]:
    """A context of 256 tokens, two sequences."""
    ctx = LlamaContext(tiny_model, LlamaContextParams(n_ctx=256, n_batch=64, n_seq_max=2, kv_unified=True))
    yield ctx
    if not ctx.closed:
        del ctx
        gc.collect()


@pytest.fixture(scope="session")
def bin_dir() -> Path:
    """The engines' native programs (``make tools``), with which the package is compared."""
    folder = ROOT / "bin"
    assert (folder / "llama-simple").exists(), "bin/ is empty: run `make tools`"
    return folder
