"""Exception types for failures that the engine reports in its log."""

from __future__ import annotations

from pathlib import Path

import pytest

from cyllama.errors import ImageGenerationError, ModelLoadError, OutOfMemoryError
from cyllama.sd._errors import OUT_OF_MEMORY, SEPARATOR, failure_reason, failure_type

SOURCES = Path(__file__).resolve().parents[2] / "thirdparty" / "stable-diffusion.cpp"


@pytest.fixture(scope="module")
def source_text() -> str:
    files = [*SOURCES.glob("src/**/*.[ch]pp"), *SOURCES.glob("ggml/src/*.c")]
    assert len(files) > 50
    return "\n".join(path.read_text(errors="replace") for path in files)


@pytest.mark.parametrize("phrase", OUT_OF_MEMORY)
def test_upstream_logs_the_phrase(phrase: str, source_text: str) -> None:
    assert phrase in source_text


def test_upstream_separates_position_and_message(source_text: str) -> None:
    assert f'"%s:%-4d{SEPARATOR}"' in source_text


@pytest.mark.parametrize("phrase", OUT_OF_MEMORY)
def test_a_lack_of_memory_becomes_out_of_memory_error(phrase: str) -> None:
    log = ("ggml_extend.hpp:1914 - first", f"model.cpp:850  - {phrase} 'x'", "model.cpp:900  - last")
    assert failure_type(ModelLoadError, log) is OutOfMemoryError


def test_other_messages_keep_the_type_and_give_the_reason() -> None:
    log = ("model.cpp:12   - unknown tensor", "stable-diffusion.cpp:900  - get sd version from file failed: 'a - b'")
    assert failure_type(ImageGenerationError, log) is ImageGenerationError
    assert failure_reason(log) == "get sd version from file failed: 'a - b'"
    assert failure_reason(()) == "" and failure_type(ModelLoadError, ()) is ModelLoadError
