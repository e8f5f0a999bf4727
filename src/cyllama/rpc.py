"""Compute a model on several machines: a server for each of them, and what a client checks before it loads a model.

``cyllama rpc-server`` runs an `RPCServer`; ``LLM(..., rpc=["host:port"])`` uses it. The protocol is that of ggml's RPC
backend. It has neither encryption nor authentication: use it in a network that you trust.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import struct
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cyllama._admission import Admission
from cyllama._native import default_threads, devices
from cyllama._native._exit import close_at_exit
from cyllama._native._rpc import serve_client, supports_rpc
from cyllama.errors import RPCError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType

__all__ = [
    "DEFAULT_PORT",
    "PROTOCOL",
    "RPCDevice",
    "RPCServer",
    "RPCServerInfo",
    "endpoints",
    "probe",
]

logger = logging.getLogger("cyllama.rpc")

PROTOCOL = (8, 0, 0)
"""Version of the protocol of ggml's RPC backend: major, minor, patch."""
DEFAULT_PORT = 50052
# Commands of the protocol: enum rpc_cmd, ggml/src/ggml-rpc/ggml-rpc.cpp.
GET_DEVICE_MEMORY, HELLO, DEVICE_COUNT = 11, 14, 15
CAPABILITIES = bytes(24)  # of the transport: none beside TCP
MOST_DEVICES = 64
MOST_SERVERS = 16


@dataclass(frozen=True)
class RPCDevice:
    """A device of an RPC server; memory in bytes."""

    memory_free: int
    memory_total: int


@dataclass(frozen=True)
class RPCServerInfo:
    """What an RPC server says of itself."""

    endpoint: str
    version: tuple[int, int, int]
    devices: tuple[RPCDevice, ...]


def _split(endpoint: str) -> tuple[str, int]:
    """Return the host and the port of ``host:port``.

    Raises
    ------
    ValueError
    """
    host, _, port = endpoint.rpartition(":")
    if not host or ":" in host or "," in endpoint or not port.isascii() or not port.isdigit():
        raise ValueError(f"the RPC server is {endpoint!r}, expected HOST:PORT with a name or an IPv4 address")
    if not 0 < int(port) < 65536:
        raise ValueError(f"the port of the RPC server {endpoint!r} is {port}, expected 1 to 65535")
    return host, int(port)


def endpoints(servers: Sequence[str] | str) -> list[str]:
    """Return the RPC servers of a list, or of a string with commas; each must be ``host:port``."""
    if not isinstance(servers, str) and not all(isinstance(server, str) for server in servers):
        raise TypeError(f"rpc is {servers!r}, expected HOST:PORT, or a list of them")
    found = [part.strip() for part in servers.split(",")] if isinstance(servers, str) else list(servers)
    for endpoint in found:
        _split(endpoint)
    if len(set(found)) < len(found):
        raise ValueError(f"rpc is {servers!r}, expected each RPC server once")
    if len(found) > MOST_SERVERS:
        raise ValueError(f"rpc has {len(found)} RPC servers, expected at most {MOST_SERVERS}")
    return found


def probe(endpoint: str, *, timeout: float = 10.0) -> RPCServerInfo:
    """Ask an RPC server for its version and its devices.

    Parameters
    ----------
    endpoint : str
        ``host:port``.
    timeout : float
        Seconds to wait for the connection, and then for the responses.

    Returns
    -------
    RPCServerInfo

    Raises
    ------
    ValueError
        `endpoint` is not ``host:port``.
    RPCError
        Nothing answers there, it is not an RPC server, or its version does not match this build's.
    """
    host, port = _split(endpoint)
    try:
        with socket.create_connection((host, port), timeout) as connection:
            end = time.monotonic() + timeout
            version = struct.unpack("4B", _call(connection, end, HELLO, CAPABILITIES, 4 + len(CAPABILITIES))[:4])[:3]
            if version[0] != PROTOCOL[0] or version[1] > PROTOCOL[1]:
                raise RPCError(
                    f"the RPC server {endpoint} speaks protocol {_dotted(version)}, this build {_dotted(PROTOCOL)}; "
                    "use the same version of cyllama on both"
                )
            (count,) = struct.unpack("<I", _call(connection, end, DEVICE_COUNT, b"", 4))
            if not 0 < count <= MOST_DEVICES:
                raise RPCError(f"the RPC server {endpoint} reports {count} devices")
            found = [struct.unpack("<QQ", _call(connection, end, GET_DEVICE_MEMORY, struct.pack("<I", index), 16))
                     for index in range(count)]  # fmt: skip
    except TimeoutError:
        raise RPCError(f"the RPC server {endpoint} does not answer; it may be stopped, or serve as many "
                       "clients as it can") from None  # fmt: skip
    except socket.gaierror as error:
        raise RPCError(f"the host of the RPC server {endpoint} is unknown: {error.strerror}") from None
    except OSError as error:
        raise RPCError(f"the RPC server {endpoint} cannot be used: {error.strerror or error}") from None
    return RPCServerInfo(endpoint, version, tuple(RPCDevice(*sizes) for sizes in found))


def _dotted(version: Iterable[int]) -> str:
    return ".".join(map(str, version))


def _call(connection: socket.socket, end: float, command: int, request: bytes, size: int) -> bytes:
    """Send a request and return the response, which has `size` bytes."""
    connection.sendall(struct.pack("<BQ", command, len(request)) + request)
    (announced,) = struct.unpack("<Q", _receive(connection, end, 8))
    if announced != size:
        raise ConnectionError("it is not an RPC server of ggml")
    return _receive(connection, end, size)


def _receive(connection: socket.socket, end: float, size: int) -> bytes:
    received = b""
    while len(received) < size:
        connection.settimeout(max(0.001, end - time.monotonic()))
        part = connection.recv(size - len(received))
        if not part:
            raise ConnectionError("it closed the connection; this client may not be allowed, or it is not an RPC "
                                  "server of ggml")  # fmt: skip
        received += part
    return received


class RPCServer:
    """Let other machines compute on the devices of this one.

    The server accepts connections from the moment it is made; `serve_forever` waits until it is closed.

    Parameters
    ----------
    host : str
        Address to listen on.
    port : int
        0: any free one.
    devices : sequence of str, optional
        Names of `cyllama.devices`; default: the GPUs, or the CPU if there are none.
    n_threads : int, optional
        Threads of the CPU device for each client; default: the physical cores that the process may use.
    allow : sequence of str
        Addresses and networks that may connect, such as ``"192.168.1.0/24"``; loopback always may.
    cache_folder : str or path, optional
        Folder that keeps large tensors, so that clients need not send them again. It grows without a limit.
    max_clients : int
        Connections that are served at the same time; more are closed at once.

    Raises
    ------
    ValueError
        An argument is invalid, or `host` is not loopback and `allow` is empty.
    UnsupportedError
        The build has no RPC backend.
    OSError
        The port is in use, or the address is not one of this machine.

    Notes
    -----
    The protocol has neither encryption nor authentication, and a client can end the process with invalid requests:
    run the server in a process of its own, in a network that you trust.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        *,
        devices: Sequence[str] | None = None,
        n_threads: int | None = None,
        allow: Sequence[str] = (),
        cache_folder: str | os.PathLike[str] | None = None,
        max_clients: int = 8,
    ) -> None:
        if not supports_rpc():
            raise UnsupportedError("this build has no RPC backend; build cyllama with CYLLAMA_BACKENDS=rpc")
        self.devices = _known_devices(devices)
        self._n_threads = default_threads() if n_threads is None else n_threads
        if not 1 <= self._n_threads <= 512:
            raise ValueError(f"n_threads is {n_threads}, expected 1 to 512")
        self._admission = Admission(host, port, allow, max_clients)
        self._cache_folder = None if cache_folder is None else os.fspath(cache_folder)
        if self._cache_folder is not None:
            os.makedirs(self._cache_folder, exist_ok=True)
        self._lock = threading.Lock()
        self._clients: dict[socket.socket, threading.Thread] = {}
        self._closed = threading.Event()
        self._listener = socket.create_server((host, port))
        self._accepting = threading.Thread(target=self._accept, name="cyllama-rpc", daemon=True)
        self._accepting.start()
        close_at_exit(self)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, port = self._listener.getsockname()[:2]
        return str(host), int(port)

    def serve_forever(self) -> None:
        """Wait until the server is closed."""
        self._closed.wait()

    def close(self) -> None:
        """Close all connections, and wait until their computations have ended."""
        if self._closed.is_set():
            return
        self._closed.set()
        _shut_down(self._listener)
        self._listener.close()
        self._accepting.join()
        with self._lock:
            clients = list(self._clients.items())
        for connection, _ in clients:
            _shut_down(connection)
        for _, thread in clients:
            thread.join()

    def __enter__(self) -> RPCServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                connection, (peer, *_) = self._listener.accept()
            except OSError:
                if self._closed.is_set():
                    return
                logger.exception("a connection cannot be accepted")
                self._closed.wait(0.5)
                continue
            self._admit(connection, str(peer))

    def _admit(self, connection: socket.socket, peer: str) -> None:
        """Serve a client in a thread of its own, or refuse it."""
        if not self._admission.admits(peer):
            logger.warning("refused a connection from %s, which allow= does not name", peer)
            connection.close()
            return
        with self._lock:
            if len(self._clients) < self._admission.max_clients:
                thread = threading.Thread(
                    target=self._serve, args=(connection, peer), name="cyllama-rpc-client", daemon=True
                )
                self._clients[connection] = thread
                try:
                    thread.start()
                except RuntimeError:  # no more threads
                    del self._clients[connection]
                    logger.exception("%s cannot be served", peer)
                    connection.close()
                return
        logger.warning("refused a connection from %s: %d clients are served", peer, self._admission.max_clients)
        connection.close()

    def _serve(self, connection: socket.socket, peer: str) -> None:
        logger.debug("serving %s", peer)
        try:
            # The engine owns, and closes, a descriptor of its own; close() ends its reads through the other one.
            serve_client(connection.dup().detach(), self.devices, self._n_threads, self._cache_folder)
        except Exception:  # a client must not end the server
            logger.exception("the connection of %s failed", peer)
        finally:
            with self._lock:
                del self._clients[connection]
            connection.close()
        logger.debug("the connection of %s ended", peer)


def _known_devices(names: Sequence[str] | None) -> list[str]:
    known = devices()
    if names is None:
        gpus = [device["name"] for device in known if device["type"] in ("gpu", "igpu")]
        return gpus or [device["name"] for device in known if device["type"] == "cpu"][:1]
    for name in names:
        if name not in [device["name"] for device in known]:
            raise ValueError(
                f"devices contains {name!r}, expected names of {sorted(device['name'] for device in known)}"
            )
    if not names:
        raise ValueError("devices is empty, expected at least one name")
    return list(names)


def _shut_down(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it is not connected any more
        connection.shutdown(socket.SHUT_RDWR)
