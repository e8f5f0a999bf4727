"""Servers with several addresses."""

from __future__ import annotations

import socket

import pytest
import requests
from server.running import running_server

from cyllama.server import ModelEntry, ServerConfig, run, serve


def test_listens_on_several_addresses() -> None:
    with running_server("-m", "tiny-random-llama", "--host", "127.0.0.1,127.0.0.2") as server:
        assert "http://127.0.0.1:" in server.url
        for address in ("127.0.0.1", "127.0.0.2"):
            response = requests.get(f"http://{address}:{server.port}/v1/models", timeout=60)
            assert response.status_code == 200, address
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.3", server.port), 5)


def test_frees_the_first_address_if_the_second_is_not_available() -> None:
    entry = ModelEntry(name="tiny", kind="llm", model="tiny-random-llama")
    with socket.create_server(("127.0.0.2", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            serve(ServerConfig(models=[entry], host="127.0.0.1, 127.0.0.2", port=port))
        socket.create_server(("127.0.0.1", port)).close()


def test_connections_send_small_parts_at_once() -> None:
    """With Nagle's algorithm, each response on a connection that is used again comes 40 ms late."""
    entry = ModelEntry(name="tiny", kind="llm", model="tiny-random-llama")
    (listener,) = run._listen(ServerConfig(models=[entry], port=0))
    with listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
