"""Exception types for failures that the engine reports in its log."""

from __future__ import annotations

from pathlib import Path

import pytest

from cyllama.sd._errors import SEPARATOR, failure_reason

SOURCES = Path(__file__).resolve().parents[2] / "thirdparty" / "stable-diffusion.cpp"


@pytest.fixture(scope="module")
def source_text() -> str:
    files = [*SOURCES.glob("src/**/*.[ch]pp"), *SOURCES.glob("ggml/src/*.c")]
    assert len(files) > 50
    return "\n".join(path.read_text(errors="replace") for path in files)


def test_upstream_separates_position_and_message(source_text: str) -> None:
    assert f'"%s:%-4d{SEPARATOR}"' in source_text


def test_the_last_message_is_the_reason() -> None:
    log = ("model.cpp:12   - unknown tensor", "stable-diffusion.cpp:900  - get sd version from file failed: 'a - b'")
    assert failure_reason(log) == "get sd version from file failed: 'a - b'"
    assert failure_reason(()) == ""
