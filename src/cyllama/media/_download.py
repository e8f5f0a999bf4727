"""Downloads: within limits, and with redirects only to URLs that are allowed."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import IO
from urllib.parse import urlsplit

from cyllama._cancel import Cancel
from cyllama.errors import CancelledError, MediaError

__all__ = ["fetch"]

BLOCK = 1 << 16
AGENT = "cyllama"


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
    url: str, name: str, check: Callable[[str], None], *, max_bytes: int, seconds: float, cancel: Cancel | None = None
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
    """
    check(url)
    end = time.monotonic() + seconds
    opener = urllib.request.build_opener(_Redirects(check))
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
