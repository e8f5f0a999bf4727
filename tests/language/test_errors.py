"""Errors of the engine become exceptions; the phrases that select them are still upstream's."""

from __future__ import annotations

from pathlib import Path

import pytest

from cyllama import LLM
from cyllama.errors import ContextFullError, EngineError, GrammarError, ModelLoadError, UnsupportedError
from cyllama.llama._errors import UPSTREAM_PHRASES, handler_error, response_error

LLAMA = Path(__file__).resolve().parents[2] / "thirdparty" / "llama.cpp"


@pytest.mark.parametrize("phrase", UPSTREAM_PHRASES)
def test_phrase_is_in_upstreams_source(phrase: str) -> None:
    assert phrase in (LLAMA / UPSTREAM_PHRASES[phrase]).read_text()


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("exceed_context_size_error", "the request exceeds the context", ContextFullError),
        ("server_error", "input (9 tokens) is too large to process", ContextFullError),
        ("server_error", "Context size has been exceeded.", ContextFullError),
        ("server_error", "the current context does not support logits computation", UnsupportedError),
        ("not_supported_error", "Start it with `--embeddings`", UnsupportedError),
        ("invalid_request_error", "Failed to parse grammar", GrammarError),
        ("invalid_request_error", "n must be positive", ValueError),
        ("server_error", "out of luck", EngineError),
    ],
)
def test_exception_of_a_response(kind: str, text: str, expected: type[Exception]) -> None:
    assert type(response_error({"type": kind, "message": text, "code": 400})) is expected


def test_exception_of_a_handler() -> None:
    assert type(handler_error(EngineError("[json.exception.type_error.302] type must be number"))) is ValueError
    assert type(handler_error(EngineError("Unknown reasoning format: x"))) is ValueError
    other = EngineError("assertion failed")
    assert handler_error(other) is other


def test_load_error_contains_each_log_line_once(tmp_path: Path) -> None:
    (tmp_path / "junk.gguf").write_bytes(b"no model, but more than a few bytes")
    with pytest.raises(ModelLoadError) as caught:
        LLM(tmp_path / "junk.gguf")
    assert caught.value.log and str(caught.value).count(caught.value.log[0]) == 1
