"""Errors in OpenAI's format: ``{"error": {"message", "type", "param", "code"}}``."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import TypedDict, cast

from starlette.exceptions import HTTPException
from starlette.responses import Response

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
    "ErrorBody",
    "engine_request_error",
    "error_body",
    "error_response",
    "first_line",
    "http_error",
    "oversized_input_error",
    "to_http_error",
]

log = logging.getLogger("cyllama.server")

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "request_too_large",
    415: "invalid_request_error",
    429: "rate_limit_error",
    431: "invalid_request_error",
    500: "server_error",
    501: "not_supported_error",
    503: "unavailable_error",
    504: "timeout_error",
}
CONTEXT_EXCEEDED = "exceed_context_size_error"
RETRY_SECONDS = 5
CLOSE_CONNECTION = {"Connection": "close"}  # the rest of the body is not read
# llama-server reports an input that exceeds the batch size as its own failure, with status 500.
OVERSIZED_INPUT = b"is too large to process"


class ErrorBody(TypedDict):
    """The value of ``error`` in a response."""

    message: str
    type: str
    param: str | None
    code: str | int


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


def error_response(error: HTTPException) -> Response:
    """Return the response for an exception of `http_error` or of Starlette."""
    raw = json.dumps({"error": error_body(error)}).encode()
    return Response(raw, error.status_code, headers=error.headers, media_type="application/json")


def to_http_error(error: BaseException) -> HTTPException:
    """Return the HTTP error for any exception; details that could reveal paths go to the log only."""
    if isinstance(error, HTTPException):
        return error
    if isinstance(error, OutOfMemoryError | MemoryError):
        log.error("not enough memory: %s", error)
        return http_error(503, "not enough memory for this request", headers={"Retry-After": str(RETRY_SECONDS)})
    if isinstance(error, ContextFullError):
        return http_error(400, first_line(error), type=CONTEXT_EXCEEDED)
    if isinstance(error, UnsupportedError):
        return http_error(400, first_line(error), type=TYPES[501])  # clients retry after a 501
    if isinstance(error, ClosedError):
        return http_error(503, "the model was unloaded")
    if isinstance(error, CancelledError):
        return http_error(503, "the request was cancelled")
    if isinstance(error, MediaError):
        return http_error(400, first_line(error))
    if isinstance(error, ModelLoadError | DownloadError | OSError):
        log.error("cannot load a model: %s", error)
        return http_error(500, "cannot load the model; see the server's log")
    if isinstance(error, EngineError):
        log.error("engine error: %s", error)
        return http_error(500, first_line(error))
    if isinstance(error, ValueError | TypeError):
        return http_error(400, first_line(error))
    log.error("unexpected error", exc_info=error)
    return http_error(500, "unexpected error; see the server's log")


def engine_request_error(error: EngineError | IndexError) -> HTTPException | None:
    """Return the error for an exception of llama-server's request parsers; None if the request was not the cause.

    The parsers throw arbitrary C++ exceptions for malformed requests.
    """
    if isinstance(error, OutOfMemoryError) or getattr(error, "aborted", False):
        return None
    return http_error(400, first_line(error))


def oversized_input_error(status: int, data: bytes) -> HTTPException | None:
    """Return the error for a response of llama-server that rejects an input as too long; None for other responses."""
    if status != 500 or OVERSIZED_INPUT not in data:
        return None
    return http_error(400, json.loads(data)["error"]["message"], type=CONTEXT_EXCEEDED)


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or its type's name."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
