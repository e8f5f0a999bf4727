"""Errors do not show the folders of the build or of this machine."""

from __future__ import annotations

import asyncio
import errno
import threading

import pytest

from cyllama._native._core import fail_assertion
from cyllama.errors import EngineError, MediaError
from cyllama.server.http.errors import error_body, to_http_error, without_folders
from cyllama.server.http.response_stream import JSON, ResponseStream

ASSERTION = "assertion of the engine failed: /src/build/ggml/src/ggml.c:123: GGML_ASSERT(a == b) failed"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ASSERTION, "assertion of the engine failed: ggml.c:123: GGML_ASSERT(a == b) failed"),
        ("cannot open '/home/me/my models/a.gguf'", "cannot open 'my models/a.gguf'"),
        ('"/home/me/a.gguf" is no file', '"a.gguf" is no file'),
        ("got exception:\\n/build/x/y.cpp:1: no", "got exception:\\ny.cpp:1: no"),
        ("failed: ggml/src/a-b/ggml.cpp:7: no", "failed: ggml.cpp:7: no"),
        ("POST /tokenize, see https://example.org/a/b", "POST /tokenize, see https://example.org/a/b"),
        ("1/2/3 and a/b/c", "1/2/3 and a/b/c"),
    ],
)
def test_removes_folders(text: str, expected: str) -> None:
    assert without_folders(text) == expected


def test_failed_assertion_shows_no_build_path() -> None:
    with pytest.raises(EngineError) as caught:
        fail_assertion()
    assert "/" in str(caught.value)
    body = error_body(to_http_error(caught.value))
    assert "/" not in body["message"] and "provoked on purpose" in body["message"]


@pytest.mark.parametrize("kind", [MediaError, ValueError, TypeError, EngineError])
def test_errors_of_requests_show_no_folders(kind: type[Exception]) -> None:
    assert error_body(to_http_error(kind("cannot read /home/me/a.png")))["message"] == "cannot read a.png"


def test_responses_of_the_engine_show_no_folders() -> None:
    async def written() -> bytes:
        stream = ResponseStream(threading.Event())
        stream.send(500, JSON, f'{{"error":{{"message":"{ASSERTION}"}}}}'.encode())
        return (await stream.read()).data

    async def streamed(part: bytes) -> bytes:
        stream = ResponseStream(threading.Event())
        stream.start_events()
        stream.write(part)
        return (await stream.read()).data

    for data in (
        asyncio.run(written()),
        asyncio.run(streamed(f'data: {{"error":{{"message":"{ASSERTION}"}}}}\n\n'.encode())),
        asyncio.run(streamed(f'event: error\ndata: {{"type":"error","error":"{ASSERTION}"}}\n\n'.encode())),
    ):
        assert b"/src" not in data and b"ggml.c:123" in data
    text = b'data: {"choices":[{"text":"/usr/local/bin/python"}]}\n\n'  # of the model
    assert asyncio.run(streamed(text)) == text


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOSPC])
def test_missing_resources_are_temporary(number: int) -> None:
    error = to_http_error(OSError(number, "no"))
    assert error.status_code == 503 and "Retry-After" in (error.headers or {})
