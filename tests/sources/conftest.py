"""Fixtures of the tests of sources."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sources.small_engine import Files, Place, Repository


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    made = Place(tmp_path)
    monkeypatch.setenv("CYLLAMA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(made.links))
    monkeypatch.setattr(tempfile, "tempdir", str(made.temporary))
    monkeypatch.setattr("engines.update.compare_declarations", lambda *_: None)  # half a second each time
    return made


@pytest.fixture
def sentence(capfd: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """Return the only line on standard error."""

    def read() -> str:
        lines = capfd.readouterr().err.strip().splitlines()
        assert len(lines) == 1, lines
        return lines[0]

    return read


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "no-gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    return Repository(tmp_path / "repository")


@pytest.fixture
def server() -> Iterator[Files]:
    running = Files()
    yield running
    running.server.shutdown()
    running.server.server_close()
