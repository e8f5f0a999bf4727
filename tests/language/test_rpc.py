"""Models whose layers other processes compute, over ggml's RPC protocol."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cyllama import LLM
from cyllama.cli import main
from cyllama.errors import CyllamaError, RPCError
from cyllama.llama import CompletionOptions, estimate_memory
from cyllama.rpc import PROTOCOL, RPCServer, endpoints, probe

MODEL = "smollm2-135m-instruct"
PROMPT = "The capital of France is"
GREEDY: CompletionOptions = {"max_tokens": 64, "temperature": 0.0}
# A server does not reorder weights, so that a process with other kernels would round otherwise.
SAME: dict[str, Any] = {"options": {"no-repack": True}}


class Worker:
    """The program ``cyllama rpc-server`` in a process of its own."""

    def __init__(self, port: int = 0) -> None:
        command = [sys.executable, "-m", "cyllama", "rpc-server", "--port", str(port), "--threads", "2"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.endpoint = self.process.stdout.readline().split(" on ")[1].split(",")[0]

    @property
    def port(self) -> int:
        return int(self.endpoint.rpartition(":")[2])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        self.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[Worker]:
    """Return a worker that no test ends."""
    worker = Worker()
    yield worker
    worker.end()


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.end()


@pytest.fixture(scope="module")
def local_text() -> str:
    with LLM(MODEL, n_ctx=512, **SAME) as llm:
        return llm.complete(PROMPT, **GREEDY).text


@pytest.mark.parametrize("n_gpu_layers", [None, 7, 99])
def test_text_equals_that_of_one_process(n_gpu_layers: int | None, shared: Worker, local_text: str) -> None:
    with LLM(MODEL, n_ctx=512, rpc=[shared.endpoint], n_gpu_layers=n_gpu_layers, **SAME) as llm:
        assert llm.complete(PROMPT, **GREEDY).text == local_text


def test_option_and_flag_are_those_of_upstream(
    shared: Worker, worker: Worker, capfd: pytest.CaptureFixture[str]
) -> None:
    both = f"{shared.endpoint},{worker.endpoint}"
    devices = estimate_memory(MODEL, n_ctx=512, options={"rpc": both}).devices
    assert [device.is_host for device in devices] == [False, False, True]
    command = ["complete", "-m", MODEL, "--rpc", both, "-c", "512", "--max-tokens", "3", PROMPT]
    assert main(command) == 0
    assert "Paris" in capfd.readouterr().out
    worker.kill()
    assert main(command) == 1
    assert worker.endpoint in capfd.readouterr().err


def test_doctor_shows_rpc_servers(shared: Worker, worker: Worker, capfd: pytest.CaptureFixture[str]) -> None:
    worker.kill()
    assert main(["doctor", "--rpc", f"{shared.endpoint},{worker.endpoint}", "--json"]) == 1
    found = json.loads(capfd.readouterr().out)
    answering, silent = found["rpc"]
    assert answering["endpoint"] == shared.endpoint and answering["devices"][0]["memory_total"] > 0
    assert silent["endpoint"] == worker.endpoint and silent["devices"] == []
    assert [worker.endpoint in problem for problem in found["problems"]].count(True) == 1


def test_weights_are_on_the_server(shared: Worker) -> None:
    local = estimate_memory(MODEL, n_ctx=512, **SAME)
    split = estimate_memory(MODEL, n_ctx=512, rpc=shared.endpoint, n_gpu_layers=7, **SAME)
    assert [device.is_host for device in split.devices] == [False, True]
    server, host = split.devices
    assert shared.endpoint in server.name and server.total > server.free // 2 > 0
    assert 0 < server.weights < local.weights and host.weights < local.weights
    assert local.weights <= server.weights + host.weights < 1.5 * local.weights  # both have the embeddings of tokens


def test_two_servers_share_a_model(shared: Worker, worker: Worker, local_text: str) -> None:
    with LLM(MODEL, n_ctx=512, rpc=[shared.endpoint, worker.endpoint], tensor_split=[1, 1], **SAME) as llm:
        assert llm.complete(PROMPT, **GREEDY).text == local_text
        worker.kill()
        with pytest.raises(RPCError):
            llm.complete("Another prompt", **GREEDY)


def test_other_models_do_not_use_the_server(worker: Worker, local_text: str) -> None:
    with LLM(MODEL, n_ctx=512, rpc=worker.endpoint):
        pass
    worker.kill()
    with LLM(MODEL, n_ctx=512, n_gpu_layers=0, **SAME) as llm:
        assert llm.complete(PROMPT, **GREEDY).text == local_text


def test_lost_worker_is_an_error(worker: Worker, local_text: str) -> None:
    with LLM(MODEL, n_ctx=512, rpc=worker.endpoint, **SAME) as llm:
        received = ""
        with pytest.raises(RPCError, match="lost"):
            for chunk in llm.complete(PROMPT, **GREEDY, stream=True):
                received += chunk.text
                worker.kill()
        assert received and local_text.startswith(received)
        with pytest.raises(RPCError, match="lost"):
            llm.chat("Hello", max_tokens=4)
    again = Worker(worker.port)
    try:
        with LLM(MODEL, n_ctx=512, rpc=again.endpoint, **SAME) as llm:
            assert llm.complete(PROMPT, **GREEDY).text == local_text
    finally:
        again.end()


def test_worker_lost_while_loading_is_an_error(worker: Worker) -> None:
    def kill(fraction: float) -> None:
        if fraction > 0.3:
            worker.kill()

    with pytest.raises(CyllamaError):
        LLM(MODEL, n_ctx=512, rpc=worker.endpoint, on_progress=kill)


def test_worker_that_hangs_is_lost_after_the_timeout(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GGML_RPC_TIMEOUT", "2")
    with LLM(MODEL, n_ctx=512, rpc=worker.endpoint) as llm:
        os.kill(worker.process.pid, signal.SIGSTOP)
        with pytest.raises(RPCError, match="lost"):
            llm.complete(PROMPT, **GREEDY)


def test_state_of_a_lost_worker_is_not_saved(worker: Worker, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with LLM(MODEL, n_ctx=512, rpc=worker.endpoint, prompt_cache=cache) as llm:
        llm.complete("one two three " * 30, max_tokens=1)
        worker.kill()
        with pytest.raises(OSError, match="state"):
            llm.save_state(tmp_path / "state")
    assert not (tmp_path / "state").exists()
    assert [path for path in cache.rglob("*") if path.is_file() and path.stat().st_size > 100_000] == []


class FakeServer:
    """A server that sends given bytes to each client after the first bytes of it; None: it never answers."""

    def __init__(self, response: bytes | None) -> None:
        self._response = response
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            client, _ = self._socket.accept()
            with client:
                if client.recv(64) == b"":
                    return
                if self._response is None:
                    client.recv(64)  # until the client gives up
                else:
                    client.sendall(self._response)

    def close(self) -> None:
        with socket.create_connection(self._socket.getsockname()):
            pass
        self._thread.join()
        self._socket.close()


def hello(*version: int) -> bytes:
    return struct.pack("<Q4B24x", 28, *version, 0)


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (hello(PROTOCOL[0] + 1, 0, 0), f"{PROTOCOL[0] + 1}.0.0"),
        (hello(PROTOCOL[0] - 1, 9, 9), f"{PROTOCOL[0] - 1}.9.9"),
        (hello(PROTOCOL[0], PROTOCOL[1] + 1, 0), f"{PROTOCOL[0]}.{PROTOCOL[1] + 1}.0"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not an RPC server"),
        (b"", "closed the connection"),
    ],
)
def test_refuses_other_servers_by_what_they_are(response: bytes, expected: str) -> None:
    server = FakeServer(response)
    try:
        with pytest.raises(RPCError, match=expected):
            LLM(MODEL, rpc=server.endpoint)
    finally:
        server.close()


def test_port_that_does_not_answer_is_an_error() -> None:
    server = FakeServer(None)
    try:
        with pytest.raises(RPCError, match="does not answer"):
            probe(server.endpoint, timeout=0.3)
    finally:
        server.close()


def test_server_that_answers_byte_by_byte_ends_the_wait() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            client, _ = listener.accept()
            with client, contextlib.suppress(OSError):
                for byte in hello(*PROTOCOL):
                    client.sendall(bytes([byte]))
                    time.sleep(0.05)

        thread = threading.Thread(target=drip)
        thread.start()
        with pytest.raises(RPCError, match="does not answer"):
            probe(f"127.0.0.1:{listener.getsockname()[1]}", timeout=0.5)
        thread.join()


def test_port_that_nobody_listens_on_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        endpoint = f"127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(RPCError, match=endpoint):
        LLM(MODEL, rpc=endpoint)


@pytest.mark.parametrize(
    "rpc", ["localhost", "localhost:", ":50052", "localhost:0", "localhost:65536", "[::1]:50052", "a:1,a:1", "a:1,,b:2",
            [f"a:{port}" for port in range(1, 18)]],
)  # fmt: skip
def test_refuses_endpoints(rpc: str | list[str]) -> None:
    with pytest.raises(ValueError, match="RPC server"):
        endpoints(rpc)
    with pytest.raises(ValueError, match="RPC server"):
        LLM(MODEL, rpc=rpc)


def test_server_needs_an_allow_list_beyond_loopback() -> None:
    for host in ("0.0.0.0", "192.0.2.1", ""):
        with pytest.raises(ValueError, match="allow"):
            RPCServer(host, 0)
    with RPCServer("0.0.0.0", 0, allow=["192.0.2.0/24"]) as server:
        assert probe(f"127.0.0.1:{server.address[1]}").devices


@pytest.mark.parametrize(("peer", "admitted"), [("192.0.2.77", True), ("192.0.3.1", False), ("127.0.0.1", True)])
def test_server_admits_only_named_networks(peer: str, admitted: bool) -> None:
    with RPCServer(port=0, allow=["192.0.2.0/24"]) as server:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            here = socket.create_connection(listener.getsockname(), timeout=10)
            there, _ = listener.accept()
        with here:
            server._admit(there, peer)  # as if it were a connection from there
            if admitted:
                here.sendall(struct.pack("<BQ24x", 14, 24))
                with here.makefile("rb") as response:
                    assert response.read(12)[8:11] == bytes(PROTOCOL)
            else:
                assert here.recv(1) == b""


def test_server_refuses_more_clients_than_it_may_serve() -> None:
    with RPCServer(port=0, max_clients=1) as server:
        with socket.create_connection(server.address, timeout=10) as first:
            first.sendall(struct.pack("<BQ24x", 14, 24))
            assert first.recv(1)
            with pytest.raises(RPCError):
                probe("{}:{}".format(*server.address), timeout=5)


@pytest.mark.parametrize(
    ("request_bytes"),
    [b"GET / HTTP/1.1\r\n\r\n", struct.pack("<BQ", 14, 2**63), struct.pack("<BQ24xBQ", 14, 24, 6, 2**62),
     struct.pack("<BQ24xB", 14, 24, 200), struct.pack("<BQ24xBQ", 14, 24, 10, 0)],
)  # fmt: skip
def test_server_survives_invalid_requests(request_bytes: bytes) -> None:
    with RPCServer(port=0) as server:
        with socket.create_connection(server.address, timeout=10) as client:
            # The server may close the connection before any of these three calls.
            with contextlib.suppress(OSError):
                client.sendall(request_bytes)
                client.shutdown(socket.SHUT_WR)
                while client.recv(4096):
                    pass
        assert probe("{}:{}".format(*server.address)).version == PROTOCOL


@pytest.mark.parametrize(
    "arguments", [{"devices": []}, {"devices": ["no such"]}, {"n_threads": 0}, {"max_clients": 0}, {"allow": ["x"]}]
)
def test_server_refuses_arguments(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        RPCServer(port=0, **arguments)  # type: ignore[arg-type]


def test_closed_server_leaves_no_threads() -> None:
    with RPCServer(port=0) as server:
        with socket.create_connection(server.address):
            server.close()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("cyllama-rpc")] == []


def test_program_ends_while_it_serves(worker: Worker) -> None:
    with LLM(MODEL, n_ctx=512, rpc=worker.endpoint) as llm:
        worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(20) == 0
        with pytest.raises(RPCError):
            llm.complete(PROMPT, **GREEDY)
