"""What goes wrong, in the shape that OpenAI gave errors: ``{"error": {"message", "type", "param", "code"}}``."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

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

__all__ = ["CLOSE", "answer", "problem", "problem_of"]

log = logging.getLogger("cyllama.server")

KINDS = {
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
SECONDS_TO_RETRY = 5
CLOSE = {"Connection": "close"}  # what is left of the body is not waited for


def problem(
    status: int,
    message: str,
    *,
    kind: str | None = None,
    param: str | None = None,
    code: str | int | None = None,
    headers: Mapping[str, str] | None = None,
) -> HTTPException:
    """An exception that becomes the answer."""
    error = {
        "message": message,
        "type": kind or KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error"),
        "param": param,
        "code": status if code is None else code,
    }
    return HTTPException(status, error, dict(headers or {}))  # type: ignore[arg-type]


def answer(error: HTTPException) -> Response:
    """The answer for what `problem` made, or for one of starlette's own."""
    detail: Any = error.detail
    if not isinstance(detail, dict):
        made: Any = problem(error.status_code, str(detail)).detail
        detail = made
    raw = json.dumps({"error": detail}).encode()
    return Response(raw, error.status_code, headers=error.headers, media_type="application/json")


def problem_of(error: BaseException) -> HTTPException:
    """The answer to an exception; what is nobody's business stands in the log alone."""
    if isinstance(error, HTTPException):
        return error
    if isinstance(error, OutOfMemoryError | MemoryError):
        log.error("not enough memory: %s", error)
        retry = {"Retry-After": str(SECONDS_TO_RETRY)}
        return problem(503, "there is not enough memory for this now", headers=retry)
    if isinstance(error, ContextFullError):
        return problem(400, first_line(error), kind="exceed_context_size_error")
    if isinstance(error, UnsupportedError):
        return problem(400, first_line(error), kind=KINDS[501])  # clients would ask again after a 501
    if isinstance(error, ClosedError):
        return problem(503, "the model was closed meanwhile")
    if isinstance(error, CancelledError):
        return problem(503, "the request was cancelled")
    if isinstance(error, MediaError):
        return problem(400, first_line(error))
    if isinstance(error, ModelLoadError | DownloadError | OSError):
        log.error("a model cannot be loaded: %s", error)
        return problem(500, "the model cannot be loaded; the server's log says why")
    if isinstance(error, EngineError):
        log.error("an engine failed: %s", error)
        return problem(500, first_line(error))
    if isinstance(error, ValueError | TypeError):
        return problem(400, first_line(error))
    log.error("unexpected", exc_info=error)
    return problem(500, "something unexpected happened; the server's log says what")


def first_line(error: BaseException) -> str:
    """What an exception says, in one line."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
