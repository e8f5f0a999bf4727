"""A process that may open few files (``ulimit -n``)."""

from __future__ import annotations

import contextlib
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from server.running import Server, running_server

from cyllama.server import Limits, ModelEntry, ServerConfig, run

FEW = 80


@pytest.fixture
def limited(endless: Path) -> Iterator[Server]:
    with running_server("--config", endless, open_files=FEW) as found:
        yield found


def test_server_with_few_files_rejects_and_recovers(limited: Server) -> None:
    assert any("ulimit -n" in line for line in limited.errors)
    many: list[socket.socket] = []
    try:
        rejected = 0
        for _ in range(2 * FEW):
            connection = limited.connect()
            many.append(connection)
            connection.settimeout(0.05)
            with contextlib.suppress(TimeoutError, ConnectionError):
                rejected += b"503" in connection.recv(100)
        assert rejected >= FEW / 2
    finally:
        for connection in many:
            connection.close()
    limited.wait_until(lambda: answers(limited))
    assert limited.post("/v1/completions", {"prompt": "x", "max_tokens": 2}).status_code == 200
    assert not [line for line in limited.errors if "Traceback" in line], limited.errors


def answers(server: Server) -> bool:
    try:
        return bool(server.get("/health").status_code == 200)
    except OSError:
        return False


class _Files:
    """The limits on open files, and what was set."""

    def __init__(self, soft: int, hard: int) -> None:
        self.values = (soft, hard)

    def get(self, which: int) -> tuple[int, int]:
        return self.values

    def set(self, which: int, values: tuple[int, int]) -> None:
        self.values = values


@pytest.mark.parametrize(
    ("soft", "hard", "set_to", "connections"),
    [
        (1024, 1 << 20, 1048, 1000),
        (1024, resource.RLIM_INFINITY, 1048, 1000),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, resource.RLIM_INFINITY, 1000),
        (4096, 4096, 4096, 1000),
        (256, 512, 512, 464),
    ],
)
def test_fits_connections_to_open_files(
    soft: int, hard: int, set_to: int, connections: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = _Files(soft, hard)
    monkeypatch.setattr(run.resource, "getrlimit", files.get)
    monkeypatch.setattr(run.resource, "setrlimit", files.set)
    config = ServerConfig(models=[ModelEntry(name="a", kind="llm", model="a")], limits=Limits(connections=1000))
    assert run._fit_open_files(config).limits.connections == connections
    assert files.values == (set_to, hard)


def test_refuses_to_start_with_too_few_files(monkeypatch: pytest.MonkeyPatch) -> None:
    files = _Files(20, 20)
    monkeypatch.setattr(run.resource, "getrlimit", files.get)
    monkeypatch.setattr(run.resource, "setrlimit", files.set)
    config = ServerConfig(models=[ModelEntry(name="a", kind="llm", model="a")])
    with pytest.raises(OSError, match="ulimit -n"):
        run._fit_open_files(config)
