"""The lines of a batch: one request each, in OpenAI's format, and the lines of their results."""

from __future__ import annotations

import functools
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from starlette.exceptions import HTTPException

from cyllama.server.config import EngineKind
from cyllama.server.http.body_limits import ValueCounter, check_values
from cyllama.server.http.errors import error_body, http_error
from cyllama.server.http.request_body import parse_json
from cyllama.server.limits import Limits
from cyllama.server.routes._text_table import text_table

__all__ = [
    "BatchInput",
    "BatchRequest",
    "LineFault",
    "Reply",
    "batch_error",
    "batch_urls",
    "error_line",
    "is_failure",
    "is_text",
    "read_requests",
    "result_line",
]

FIELDS = ("custom_id", "method", "url", "body")
MAX_ID = 512  # characters
MAX_FAULTS = 100  # that are reported
MAX_NAME, MAX_MESSAGE = 200, 1000  # characters of a fault's param and message
MAX_EMPTY = 100_000  # empty lines of a file
IMAGES = "/v1/images/generations"
MEDIA = (IMAGES, "/sdapi/v1/txt2img", "/sdapi/v1/img2img")
OLLAMA = ("/api/chat", "/api/generate", "/api/embed", "/api/embeddings")
STREAMED = ("/api/chat", "/api/generate")  # unless `stream` is false


@functools.cache
def batch_urls() -> Mapping[str, EngineKind]:
    """Return the routes that a batch may use, with their engines: all that compute something from a JSON body."""
    found: dict[str, EngineKind] = {path: "llm" for route in text_table() for path in route.paths}
    return MappingProxyType(found | dict.fromkeys(OLLAMA, "llm") | dict.fromkeys(MEDIA, "sd"))


@dataclass(frozen=True)
class BatchRequest:
    """A request of a batch.

    Attributes
    ----------
    line : int
        Its line in the file, from 1.
    custom_id, url : str
    body : dict
    """

    line: int
    custom_id: str
    url: str
    body: dict[str, Any]


class LineFault(NamedTuple):
    """A line that is no request.

    Attributes
    ----------
    line : int or None
        None: the fault is in no line.
    code, message : str
    param : str or None
    """

    line: int | None
    code: str
    message: str
    param: str | None = None

    @classmethod
    def cut(cls, line: int, code: str, message: str, param: str | None = None) -> LineFault:
        """Return a fault whose texts are of the file: shortened, and valid in UTF-8."""
        name = None if param is None else _shown(param, MAX_NAME)
        return cls(line, code, _shown(message, MAX_MESSAGE), name)

    def __str__(self) -> str:
        return self.message if self.line is None else f"line {self.line}: {self.message}"


def _shown(text: str, most: int) -> str:
    return text[:most].encode("utf-8", "backslashreplace").decode()


class Reply(NamedTuple):
    """The response to a request.

    Attributes
    ----------
    status : int
    content_type : str
    body : bytes
    retry_after : float or None
        Seconds after which the client may try again.
    """

    status: int
    content_type: str
    body: bytes
    retry_after: float | None = None


@dataclass
class BatchInput:
    """A file of requests that has been checked.

    Attributes
    ----------
    path : path
    ids : dict
        Line of each ``custom_id``, in the order of the file.
    faults : list of LineFault
        At most 100, and one more if the lines after them have not been checked.
    """

    path: str | os.PathLike[str]
    ids: dict[str, int] = field(default_factory=dict)
    faults: list[LineFault] = field(default_factory=list)

    @classmethod
    def check(
        cls,
        path: str | os.PathLike[str],
        limits: Limits,
        *,
        endpoint: str | None = None,
        max_requests: int | None = None,
    ) -> BatchInput:
        """Check all lines of a file.

        Parameters
        ----------
        path : path
        limits : Limits
        endpoint : str, optional
            The only URL that the lines may have; by default all of `batch_urls`.
        max_requests : int, optional

        Raises
        ------
        OSError
        """
        found = cls(path)
        for item in read_requests(path, limits, endpoint=endpoint):
            if isinstance(item, LineFault):
                fault: LineFault | None = item
            elif item.custom_id in found.ids:
                first = found.ids[item.custom_id]
                message = f"custom_id is {item.custom_id!r:.200}, as in line {first}; expected each only once"
                fault = LineFault(item.line, "duplicate_custom_id", message, "custom_id")
            elif max_requests is not None and len(found.ids) >= max_requests:
                message = f"the file has more than {max_requests:,} requests (limits.batch_requests)"
                found.faults.append(LineFault(item.line, "too_many_requests", message))
                return found
            else:
                found.ids[item.custom_id], fault = item.line, None
            if fault is not None:
                found.faults.append(fault)
                if len(found.faults) >= MAX_FAULTS:
                    message = f"{MAX_FAULTS} lines are no requests; the lines after line {fault.line} are not checked"
                    found.faults.append(LineFault(None, "too_many_faults", message))
                    return found
        if not found.ids and not found.faults:
            found.faults.append(LineFault(1, "empty_file", "the file has no requests, expected one in each line"))
        return found


def read_requests(
    path: str | os.PathLike[str], limits: Limits, *, endpoint: str | None = None
) -> Iterator[BatchRequest | LineFault]:
    """Yield the requests of a file; empty lines are skipped. Arguments as of `BatchInput.check`.

    Raises
    ------
    OSError
    """
    urls = batch_urls() if endpoint is None else {endpoint: ""}
    with open(path, "rb") as file:
        number = empty = 0
        while line := file.readline(limits.body + 1):
            number += 1
            if len(line) > limits.body:
                yield LineFault(number, "line_too_long", f"the line is longer than {limits.body:,} bytes (limits.body)")
                return
            if line.strip():
                yield _parse(line, number, limits, urls)
                continue
            empty += 1
            if empty > MAX_EMPTY:
                yield LineFault(number, "too_many_empty_lines", f"the file has more than {MAX_EMPTY:,} empty lines")
                return


def _parse(line: bytes, number: int, limits: Limits, urls: Mapping[str, str]) -> BatchRequest | LineFault:
    try:
        counter = ValueCounter()
        counter.add(line)
        check_values(counter.count, limits)
        found = parse_json(line, limits, dict)
    except HTTPException as error:
        message = error_body(error)["message"].replace("the body", "the line", 1)
        return LineFault.cut(number, "invalid_json_line", message)

    def fault(param: str, expected: str) -> LineFault:
        given = f"{param} is {found[param]!r:.200}" if param in found else f"{param} is missing"
        return LineFault.cut(number, f"invalid_{param}", f"{given}, expected {expected}", param)

    unknown = next((name for name in found if name not in FIELDS), None)
    if unknown is not None:
        message = f"unknown field {unknown!r:.100}, expected {', '.join(FIELDS)}"
        return LineFault.cut(number, "unknown_field", message, unknown)
    custom_id, url, body = (found.get(name) for name in ("custom_id", "url", "body"))
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= MAX_ID:
        return fault("custom_id", f"a string of 1 to {MAX_ID} characters")
    if not is_text(custom_id):
        return fault("custom_id", "text without lone surrogates")
    if found.get("method") != "POST":
        return fault("method", "'POST'")
    if not isinstance(url, str) or url not in urls:
        return fault("url", f"one of {', '.join(urls)}")
    if not isinstance(body, dict):
        return fault("body", "an object")
    return BatchRequest(number, custom_id, url, body)


def is_text(value: str) -> bool:
    """Return whether UTF-8 can encode a string: it has no lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def batch_error(request: BatchRequest) -> Reply | None:
    """Return the response to a request for something that a batch has no place for; None for other requests.

    This is a stream, or the address of an image, which the server keeps for a short time only.
    """
    stream = request.body.get("stream", request.url in STREAMED)
    if stream is not None and stream is not False:
        return _rejected("stream", f"stream is {request.body.get('stream')!r:.100}, expected false in a batch")
    if request.url == IMAGES and request.body.get("response_format") == "url":
        return _rejected("response_format", "response_format is 'url', expected 'b64_json' in a batch")
    return None


def _rejected(param: str, message: str) -> Reply:
    body = error_body(http_error(400, message, param=param))
    return Reply(400, "application/json", json.dumps({"error": body}).encode())


def result_line(request: BatchRequest, reply: Reply) -> dict[str, Any]:
    """Return the line for a response."""
    body = json.loads(reply.body) if reply.content_type.startswith("application/json") else reply.body.decode("utf-8")
    response = {"status_code": reply.status, "request_id": f"req_{secrets.token_hex(12)}", "body": body}
    return {**_head(request.custom_id), "response": response, "error": None}


def error_line(custom_id: str, code: str, message: str) -> dict[str, Any]:
    """Return the line for a request that got no response."""
    return {**_head(custom_id), "response": None, "error": {"code": code, "message": message}}


def _head(custom_id: str) -> dict[str, Any]:
    return {"id": f"batch_req_{secrets.token_hex(12)}", "custom_id": custom_id}


def is_failure(line: Mapping[str, Any]) -> bool:
    """Return whether the line of a result is about an error."""
    return line.get("response") is None or line["response"]["status_code"] >= 400
