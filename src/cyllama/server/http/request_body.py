"""Request bodies: JSON and multipart forms, with limits on size, time, nesting and number of fields."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, Never, Self, TypeVar

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from cyllama.server.http.body_limits import ValueCounter, check_body, check_values, depth_error
from cyllama.server.http.errors import CLOSE_CONNECTION, http_error
from cyllama.server.http.queues import BodyBudget
from cyllama.server.limits import Limits

__all__ = ["MAX_FIELDS", "RequestBody", "parse_json"]

CHARSETS = frozenset(("utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin-1"))
MAX_FIELDS = 64
"""Maximum number of text fields in a form."""
JSON_NAMES: dict[type, str] = {dict: "an object", list: "an array"}
INLINE_BYTES = 1 << 16  # JSON up to this size is parsed in the event loop, larger JSON in a thread
VALUE_BYTES = 64  # memory of a parsed value, at least

_T = TypeVar("_T", dict[str, Any], list[Any])


class RequestBody:
    """A body that counts in the budget until it is released.

    >>> async with RequestBody(budget, limits) as body:                             # doctest: +SKIP
    ...     fields = await body.json(request)
    ...     return state.respond("llm", work, body.keep())

    Parameters
    ----------
    budget : BodyBudget
    limits : Limits
    """

    def __init__(self, budget: BodyBudget, limits: Limits) -> None:
        self._budget, self._limits = budget, limits
        self._size = 0
        self._kept = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if not self._kept:
            self.release()

    def keep(self) -> Callable[[], None]:
        """Keep the body beyond the block, and return the function that releases it."""
        self._kept = True
        return self.release

    def release(self) -> None:
        """Return the bytes to the budget; a second call does nothing."""
        self._budget.release(self._size)
        self._size = 0

    async def json(self, request: Request) -> dict[str, Any]:
        """Read the body as a JSON object.

        Raises
        ------
        HTTPException
            400, 408, 413, 429.
        """
        return await self._parsed(request, dict)

    async def json_list(self, request: Request) -> list[Any]:
        """Read the body as a JSON array; errors as of `json`."""
        return await self._parsed(request, list)

    async def _parsed(self, request: Request, kind: type[_T]) -> _T:
        data, values = bytearray(), ValueCounter()
        async for chunk in self._chunks(request):
            data += chunk
            before = values.count
            values.add(chunk)
            check_values(values.count, self._limits)
            self._hold(VALUE_BYTES * (values.count - before))
        if len(data) <= INLINE_BYTES:
            return parse_json(data, self._limits, kind)
        async with self._budget.parsing:
            return await asyncio.to_thread(parse_json, data, self._limits, kind)

    @contextlib.asynccontextmanager
    async def form(self, request: Request) -> AsyncIterator[FormData]:
        """Read the body as a multipart form; its files are open within the block.

        Raises
        ------
        HTTPException
            400, 408, 413, 415, 429.
        """
        kind, options = parse_options_header(request.headers.get("content-type", ""))
        if kind != b"multipart/form-data":
            raise http_error(415, "expected Content-Type: multipart/form-data")
        charset = options.get(b"charset", b"utf-8").decode("latin-1")
        if charset.casefold() not in CHARSETS:  # some of Python's codecs take quadratic time, or make surrogates
            raise http_error(400, f"the form's charset is {charset!r:.100}, expected utf-8")
        chunks = self._chunks(request)

        async def receive() -> Message:
            chunk = await anext(chunks, None)
            return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

        limited = Request(request.scope, receive)
        reading = limited.form(max_files=self._limits.media, max_fields=MAX_FIELDS, max_part_size=self._limits.text)
        form = await reading
        try:
            yield form
        finally:
            await form.close()

    def _hold(self, size: int) -> None:
        self._budget.acquire(size, self._size)
        self._size += size

    async def _chunks(self, request: Request) -> AsyncIterator[bytes]:
        """Yield the body's chunks while checking size and time."""
        limits = self._limits
        length = request.headers.get("content-length")
        if length is not None and length.isdigit() and int(length) > limits.body:
            raise _too_large(limits.body)
        end, received = asyncio.get_running_loop().time() + limits.body_seconds, 0
        stream = aiter(request.stream())
        while True:
            try:
                async with asyncio.timeout_at(end):
                    chunk = await anext(stream, None)
            except TimeoutError:
                message = f"the body did not arrive within {limits.body_seconds:g} s"
                raise http_error(408, message, headers=CLOSE_CONNECTION) from None
            except ClientDisconnect:
                message = "the client disconnected before the end of the body"
                raise http_error(400, message, headers=CLOSE_CONNECTION) from None
            if chunk is None:
                return
            self._hold(len(chunk))
            received += len(chunk)
            if received > limits.body:
                raise _too_large(limits.body)
            yield chunk


def _too_large(limit: int) -> HTTPException:
    return http_error(413, f"the body is larger than {limit:,} bytes")


def parse_json(data: bytes | bytearray, limits: Limits, kind: type[_T]) -> _T:
    """Return the value of a JSON text whose values have been counted.

    Raises
    ------
    HTTPException
        400.
    """
    try:
        found = json.loads(data.decode("utf-8"), parse_constant=_reject_constant)
    except UnicodeDecodeError:
        raise http_error(400, "the body is not valid UTF-8") from None
    except RecursionError:
        raise depth_error(limits) from None
    except ValueError as error:
        raise http_error(400, f"the body is not valid JSON: {str(error)[:200]}") from None
    if not isinstance(found, kind):
        raise http_error(400, f"the body is a JSON {type(found).__name__}, expected {JSON_NAMES[kind]}")
    check_body(found, limits)
    return found


def _reject_constant(text: str) -> Never:
    """Reject NaN and Infinity, which Python's parser accepts."""
    raise ValueError(f"{text} is not a JSON number")
