"""Engine messages: off by default, sent to `logging` on request, and included in exceptions."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cyllama import log
from cyllama.errors import EngineError, ModelLoadError
from cyllama.llama import LlamaContext, LlamaContextParams, LlamaModel


@pytest.fixture(autouse=True)
def restore() -> Iterator[None]:
    yield
    log.set_level(None)


def test_silent_by_default(tiny_path: Path) -> None:
    code = f"import cyllama; m = cyllama.LlamaModel({str(tiny_path)!r}); c = cyllama.LlamaContext(m)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "" and done.stderr == ""


def test_environment_variable_sets_the_level(tiny_path: Path) -> None:
    code = f"import cyllama; cyllama.LlamaModel({str(tiny_path)!r})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"CYLLAMA_LOG": "info"}
    )
    assert "cyllama.llama: llama_model_loader: loaded meta data" in done.stderr


def test_level_selects_messages(tiny_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log.set_level("info")
    LlamaModel(tiny_path)
    assert any(r.name == "cyllama.llama" and r.levelno == logging.INFO for r in caplog.records)
    assert not any("\n" in r.getMessage() for r in caplog.records)
    caplog.clear()
    log.set_level(logging.ERROR)
    LlamaModel(tiny_path)
    assert not caplog.records
    with pytest.raises(ValueError, match="level is 'loud'"):
        log.set_level("loud")


def test_exceptions_contain_the_engine_log(smol_model: LlamaModel) -> None:
    params = LlamaContextParams(n_ctx=64, type_v="q4_0", flash_attn_type="disabled")
    with pytest.raises(EngineError) as caught:
        LlamaContext(smol_model, params)
    assert caught.value.function == "llama_init_from_model"
    assert any("quantized V cache requires flash_attn" in line for line in caught.value.log)


def test_exceptions_contain_lines_of_their_thread(tmp_path: Path, smol_model: LlamaModel) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(b"GGUF" + b"\1" * 100)
    logs: dict[int, tuple[str, ...]] = {}

    def load(i: int) -> None:
        try:
            if i % 2:
                LlamaModel(path)
            else:
                LlamaContext(smol_model, LlamaContextParams(type_v="q4_0", flash_attn_type="disabled"))
        except EngineError as error:
            logs[i] = error.log

    threads = [threading.Thread(target=load, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(logs) == 8
    for i, lines in logs.items():
        assert any("flash_attn" in line for line in lines) == (i % 2 == 0), (i, lines)


def test_ignores_errors_of_handlers(tiny_path: Path) -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("broken handler")

    handler = Broken()
    log.logger.addHandler(handler)
    try:
        log.set_level("debug")
        LlamaModel(tiny_path)
    finally:
        log.logger.removeHandler(handler)


def test_errors_have_attributes_and_message() -> None:
    error = ModelLoadError("no", engine="llama", function="f", code=3, log=("a", "b"))
    assert isinstance(error, (OSError, RuntimeError))
    assert str(error) == "no\n  engine log: a\n  engine log: b"
    assert (error.engine, error.function, error.code, error.aborted) == ("llama", "f", 3, False)
