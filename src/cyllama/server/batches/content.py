"""The content of a file as a response: it is read from an open file, which a deletion does not end."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from cyllama.server.http.errors import http_error

__all__ = ["file_content"]

CHUNK = 1 << 16
RANGE = re.compile(r"bytes=(?:([0-9]{1,18})-([0-9]{1,18})?|-([0-9]{1,18}))", re.IGNORECASE)


class _Content(StreamingResponse):
    def __init__(self, file: IO[bytes], first: int, count: int, status: int, headers: dict[str, str]) -> None:
        super().__init__(self._chunks(), status, headers, "application/octet-stream")
        self._file, self._first, self._count = file, first, count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response, and close the file."""
        if scope["method"] == "HEAD":
            self._count = 0
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()

    async def _chunks(self) -> AsyncIterator[bytes]:
        left = self._count
        self._file.seek(self._first)
        while left and (chunk := await asyncio.to_thread(self._file.read, min(left, CHUNK))):
            left -= len(chunk)
            yield chunk


async def file_content(path: Path, name: str, request: Request) -> Response:
    """Return the response with a file, or with one range of it; a request for several ranges gets the whole file.

    Parameters
    ----------
    path : path
    name : str
        Name for the client.
    request : starlette.requests.Request

    Raises
    ------
    FileNotFoundError
    HTTPException
        416: the range begins after the end of the file.
    """
    file = await asyncio.to_thread(open, path, "rb")
    try:
        size = os.fstat(file.fileno()).st_size
        first, end = _range(request, size)
        quoted = quote(name, safe="")
        title = f'filename="{name}"' if quoted == name else f"filename*=utf-8''{quoted}"
        headers = {
            "Accept-Ranges": "bytes",
            "Content-Disposition": f"attachment; {title}",
            "Content-Length": str(end - first),
        }
        part = (first, end) != (0, size)
        if part:
            headers["Content-Range"] = f"bytes {first}-{end - 1}/{size}"
        return _Content(file, first, end - first, 206 if part else 200, headers)
    except BaseException:
        file.close()
        raise


def _range(request: Request, size: int) -> tuple[int, int]:
    """Return the bytes that a request is for; all if it has no range that can be followed."""
    found = RANGE.fullmatch(request.headers.get("range", "").strip())
    if found is None or "if-range" in request.headers:
        return 0, size
    start, last, suffix = found.groups()
    if suffix is not None:
        first, end = max(0, size - int(suffix)), size
    else:
        first, end = int(start), size if last is None else min(size, int(last) + 1)
        if last is not None and int(last) < int(start):  # not valid: to be ignored
            return 0, size
    if first >= end:
        message = f"Range is {request.headers['range']!r:.100}, the file has {size:,} bytes"
        raise http_error(416, message, param="Range", headers={"Content-Range": f"bytes */{size}"})
    return first, end
