"""Errors in OpenAI's format, ``{"error": {"message", "type", "param", "code"}}``; in Ollama's below ``/api/``."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
from collections.abc import Mapping
from typing import NotRequired, TypedDict, cast

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from cyllama.errors import (
    CancelledError,
    ClosedError,
    ContextFullError,
    DownloadError,
    EngineError,
    MediaError,
    ModelLoadError,
    OutOfMemoryError,
    UnsupportedError,
)

__all__ = [
    "CLOSE_CONNECTION",
    "OLLAMA_PREFIX",
    "ErrorBody",
    "engine_request_error",
    "error_body",
    "error_message",
    "error_response",
    "error_value",
    "http_error",
    "oversized_input_error",
    "to_http_error",
    "without_folders",
]

log = logging.getLogger("cyllama.server")

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    415: "invalid_request_error",
    429: "rate_limit_error",
    431: "invalid_request_error",
    500: "server_error",
    501: "not_supported_error",
    503: "unavailable_error",
    504: "timeout_error",
}
OLLAMA_PREFIX = "/api/"
CONTEXT_EXCEEDED = "exceed_context_size_error"
RETRY_SECONDS = 5
NO_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOSPC)
PATH = re.compile(r"(?:(?<![\w.:/])|(?<=\\n))/(?:[^\s/:'\"]+/)+([^\s/:'\"]+)")
SOURCE = re.compile(r"(?<![\w./:+-])(?:[\w.+-]+/)+(?=[\w.+-]+:\d+:)")  # the folders of a source file and its line
MAX_MESSAGE = 4_000  # characters
CLOSE_CONNECTION = {"Connection": "close"}  # the rest of the body is not read
# llama-server reports an input that exceeds the batch size, and a full context, as its own failure, with status 500.
OVERSIZED_INPUTS = (b"is too large to process", b"Context size has been exceeded")


class ErrorBody(TypedDict):
    """The value of ``error`` in a response; the numbers are those of a prompt that exceeds the context."""

    message: str
    type: str
    param: str | None
    code: str | int
    n_prompt_tokens: NotRequired[int]
    n_ctx: NotRequired[int]


def http_error(
    status: int,
    message: str,
    *,
    type: str | None = None,
    param: str | None = None,
    code: str | int | None = None,
    headers: Mapping[str, str] | None = None,
) -> HTTPException:
    """Return an exception that becomes an error response.

    Parameters
    ----------
    status : int
        HTTP status.
    message : str
    type : str, optional
        OpenAI's error type; by default the one that belongs to the status.
    param : str, optional
        Field of the request that is wrong.
    code : str or int, optional
        OpenAI's error code; by default the status.
    headers : mapping, optional
    """
    kind = type or TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    body = ErrorBody(message=message, type=kind, param=param, code=status if code is None else code)
    return HTTPException(status, body, dict(headers or {}))  # type: ignore[arg-type]


def error_body(error: HTTPException) -> ErrorBody:
    """Return the value of ``error`` for an exception of `http_error` or of Starlette."""
    detail: object = error.detail
    if not isinstance(detail, dict):
        detail = http_error(error.status_code, str(detail)).detail
    return cast(ErrorBody, detail)


def error_value(error: HTTPException, path: str) -> ErrorBody | str:
    """Return the value of ``error`` in the format of a path: Ollama's is the message."""
    body = error_body(error)
    return body["message"] if path.startswith(OLLAMA_PREFIX) else body


class _ErrorResponse(Response):
    """A response whose format depends on the path of the request."""

    def __init__(self, error: HTTPException) -> None:
        super().__init__(status_code=error.status_code)
        self._error = error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        error = self._error
        raw = json.dumps({"error": error_value(error, scope["path"])}).encode()
        response = Response(raw, error.status_code, headers=error.headers, media_type="application/json")
        await response(scope, receive, send)


def error_response(error: HTTPException) -> Response:
    """Return the response for an exception of `http_error` or of Starlette."""
    return _ErrorResponse(error)


def to_http_error(error: BaseException) -> HTTPException:
    """Return the HTTP error for any exception; details that could reveal paths go to the log only."""
    if isinstance(error, HTTPException):
        return error
    if isinstance(error, OutOfMemoryError | MemoryError):
        log.error("not enough memory: %s", error)
        return http_error(503, "not enough memory for this request", headers={"Retry-After": str(RETRY_SECONDS)})
    if isinstance(error, ContextFullError):
        found = http_error(400, error_message(error), type=CONTEXT_EXCEEDED)
        if error.n_prompt_tokens is not None and error.n_ctx is not None:
            error_body(found).update({"n_prompt_tokens": error.n_prompt_tokens, "n_ctx": error.n_ctx})
        return found
    if isinstance(error, UnsupportedError):
        return http_error(400, error_message(error), type=TYPES[501])  # clients retry after a 501
    if isinstance(error, ClosedError):
        return http_error(503, "the model was unloaded")
    if isinstance(error, CancelledError):
        return http_error(503, "the request was cancelled")
    if isinstance(error, MediaError):
        return http_error(400, error_message(error))
    if isinstance(error, OSError) and error.errno in NO_RESOURCES:
        log.error("no free resources: %s", error)
        message = f"the server cannot open files now ({os.strerror(error.errno)})"
        return http_error(503, message, headers={"Retry-After": str(RETRY_SECONDS)})
    if isinstance(error, ModelLoadError | DownloadError | OSError):
        log.error("cannot load a model: %s", error)
        return http_error(500, "cannot load the model; see the server's log")
    if isinstance(error, EngineError):
        log.error("engine error: %s", error)
        return http_error(500, error_message(error))
    if isinstance(error, ValueError | TypeError):
        return http_error(400, error_message(error))
    log.error("unexpected error", exc_info=error)
    return http_error(500, "unexpected error; see the server's log")


def engine_request_error(error: EngineError | IndexError) -> HTTPException | None:
    """Return the error for an exception of llama-server's request parsers; None if the request was not the cause.

    The parsers throw arbitrary C++ exceptions for malformed requests.
    """
    if isinstance(error, OutOfMemoryError) or getattr(error, "aborted", False):
        return None
    return http_error(400, error_message(error))


def oversized_input_error(status: int, data: bytes) -> HTTPException | None:
    """Return the error for a response of llama-server that rejects an input as too long; None for other responses."""
    if status != 500 or not any(phrase in data for phrase in OVERSIZED_INPUTS):
        return None
    return http_error(400, without_folders(json.loads(data)["error"]["message"]), type=CONTEXT_EXCEEDED)


def error_message(error: BaseException) -> str:
    """Return the message of an exception without folders, shortened if it is long, or its type's name."""
    text = without_folders(str(error).strip()) or type(error).__name__
    return text if len(text) <= MAX_MESSAGE else text[:MAX_MESSAGE] + " ..."


def without_folders(text: str) -> str:
    """Return a message in which absolute paths, and those of source files, are reduced to the file's name.

    Assertions of the engines contain the paths of the build, and errors of files those of this machine.
    """
    return SOURCE.sub("", PATH.sub(r"\1", text))
