"""Downloads: within limits, with redirects only to URLs that are allowed, and only from public addresses."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import IO, Any
from urllib.parse import urlsplit

from cyllama._cancel import Cancel
from cyllama.errors import CancelledError, MediaError

__all__ = ["fetch"]

BLOCK = 1 << 16
AGENT = "cyllama"
NAT64 = ipaddress.ip_network("64:ff9b::/96")


class _Handler(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Opens connections to addresses that are checked after the name is resolved, also for redirects.

    Parameters
    ----------
    allow_private : callable
        Called with a host name; returns whether the host may have an address that is not public.
    name : str
        The name of the value in messages.
    """

    def __init__(self, allow_private: Callable[[str], bool], name: str) -> None:
        super().__init__()
        self._allow_private, self._name = allow_private, name

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection(http.client.HTTPConnection), req)

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(self._connection(http.client.HTTPSConnection), req)

    def _connection(self, kind: type[http.client.HTTPConnection]) -> Callable[..., http.client.HTTPConnection]:
        def create(host: str, **options: Any) -> http.client.HTTPConnection:
            connection = kind(host, **options)
            connection._create_connection = self._connect  # type: ignore[attr-defined]
            return connection

        return create

    def _connect(self, address: tuple[str, int], timeout: float, source_address: object = None) -> socket.socket:
        host, port = address
        found = [info[4][0] for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        usable = found if self._allow_private(host) else [item for item in found if _is_public(str(item))]
        if not usable:
            raise ValueError(
                f"{self._name} is a URL of {host}, whose address {found[0]} is not public; "
                "allow_urls must contain the name of such a host"
            )
        error: OSError | None = None
        for item in dict.fromkeys(usable):
            try:
                return socket.create_connection((str(item), port), timeout)
            except OSError as reason:
                error = reason
        assert error is not None
        raise error


def _is_public(address: str) -> bool:
    """Return whether an address is one of the internet; those that contain an IPv4 address are judged by it."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo and found.teredo[1])
        if found in NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        found = inner or found
    return found.is_global and not found.is_multicast


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Checks each URL of a redirect as the first one."""

    def __init__(self, check: Callable[[str], None]) -> None:
        self._check = check

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        self._check(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(
    url: str,
    name: str,
    check: Callable[[str], None],
    *,
    allow_private: Callable[[str], bool],
    max_bytes: int,
    seconds: float,
    cancel: Cancel | None = None,
) -> bytes:
    """Download a file.

    Parameters
    ----------
    url : str
        ``http`` or ``https``.
    name : str
        The name of the value in messages.
    check : callable
        Called with the URL, and with each URL of a redirect; raises if it is not allowed.
    allow_private : callable
        Called with a host name; returns whether the host may have an address that is not public, such as one of this
        machine or its network.
    max_bytes : int
        Largest size; compared before reading if the server sends the size.
    seconds : float
        Timeout of the download, and of each response of the server.
    cancel : Cancel, optional
        Checked after each block.

    Raises
    ------
    MediaError
        The download failed.
    ValueError
        The file is too large, or a URL is not allowed.
    CancelledError

    Notes
    -----
    Proxies of the environment are not used: they would resolve the name again, to an address that was not checked.
    """
    check(url)
    end = time.monotonic() + seconds
    no_proxies = urllib.request.ProxyHandler({})
    opener = urllib.request.build_opener(no_proxies, _Handler(allow_private, name), _Redirects(check))
    request = urllib.request.Request(url, headers={"User-Agent": AGENT})
    out = bytearray()
    try:
        with opener.open(request, timeout=seconds) as response:
            _check_size(int(response.headers.get("Content-Length") or 0), name, max_bytes)
            while block := response.read1(BLOCK):
                out += block
                _check_size(len(out), name, max_bytes)
                if cancel is not None and cancel.is_set():
                    raise CancelledError("cancelled")
                if time.monotonic() > end:
                    raise TimeoutError(f"not there after {seconds:g} s")
    except (OSError, http.client.HTTPException) as error:  # URLError and time-outs are OSErrors
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise MediaError(f"{name} cannot be fetched from {urlsplit(url).hostname}: {reason}") from error
    return bytes(out)


def _check_size(n: int, name: str, max_bytes: int) -> None:
    if n > max_bytes:
        raise ValueError(f"{name} has more than {max_bytes:,} bytes (max_bytes)")
