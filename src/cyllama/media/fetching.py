"""Files from addresses on the net, where the caller allows it: within limits, and following only what is allowed."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import IO, Any
from urllib.parse import urlsplit

from cyllama.errors import CancelledError, MediaError

__all__ = ["fetched"]

BLOCK = 1 << 16
AGENT = "cyllama"


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows an address only where the first one would have been taken as well."""

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


def fetched(
    url: str, name: str, check: Callable[[str], None], *, max_bytes: int, seconds: float, cancel: Any = None
) -> bytes:
    """The content of a file on the net.

    Parameters
    ----------
    url : str
        ``http`` or ``https``.
    name : str
        Its name in messages.
    check : callable
        Called with the address, and with each one that it is redirected to; raises if that is not to be opened.
    max_bytes : int
        What is larger is refused, before it is read if the server says its size.
    seconds : float
        For all of it, and for each answer of the server.
    cancel : object with ``is_set()``, optional
        Looked at between two blocks.

    Raises
    ------
    MediaError
        It cannot be had.
    ValueError
        It is too large, or not allowed.
    CancelledError
    """
    check(url)
    end = time.monotonic() + seconds
    opener = urllib.request.build_opener(_Redirects(check))
    request = urllib.request.Request(url, headers={"User-Agent": AGENT})
    out = bytearray()
    try:
        with opener.open(request, timeout=seconds) as answer:
            _check_size(int(answer.headers.get("Content-Length") or 0), name, max_bytes)
            while block := answer.read1(BLOCK):
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
        raise ValueError(f"{name} has more than {max_bytes:,} bytes, the most that is taken (max_bytes)")
