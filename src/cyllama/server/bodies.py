"""Bodies of requests: read within limits of size and time, JSON within a limit of depth, forms within one of fields."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Self

from starlette.datastructures import FormData
from starlette.requests import ClientDisconnect, Request

from cyllama.server.hub import Hub
from cyllama.server.problems import CLOSE, problem

__all__ = ["Body", "containers"]

MOST_FIELDS, MOST_FILES = 64, 16
SMALL = 1 << 18  # bytes of JSON that the event loop reads itself


class Body:
    """A body that counts in the server's budget until it is released.

    >>> async with Body(hub) as body:                             # doctest: +SKIP
    ...     fields = await body.json(request)
    ...     return hub.work("llm", task, body.keep())
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._taken = 0
        self._kept = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if not self._kept:
            self.release()

    def keep(self) -> Callable[[], None]:
        """What releases it, when the work with it has ended."""
        self._kept = True
        return self.release

    def release(self) -> None:
        """It is no longer in memory; can be called twice."""
        self._hub.bodies.give_back(self._taken)
        self._taken = 0

    async def json(self, request: Request) -> dict[str, Any]:
        """Read it as a JSON object.

        Raises
        ------
        HTTPException
            400, 408, 413, 429.
        """
        data = b"".join([chunk async for chunk in self._chunks(request)])
        depth = self._hub.config.limits.depth
        if len(data) <= SMALL:
            return _parsed(data, depth)
        return await asyncio.to_thread(_parsed, data, depth)

    @contextlib.asynccontextmanager
    async def form(self, request: Request) -> AsyncIterator[FormData]:
        """Read it as a multipart form, whose files are open within the block.

        Raises
        ------
        HTTPException
            400, 408, 413, 415, 429.
        """
        if not request.headers.get("content-type", "").casefold().startswith("multipart/form-data"):
            raise problem(415, "expected a form: Content-Type: multipart/form-data")
        parts = self._chunks(request)

        async def receive() -> dict[str, Any]:
            chunk = await anext(parts, None)
            return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

        counted = Request(request.scope, receive)
        largest = self._hub.config.limits.body
        reading = counted.form(max_files=MOST_FILES, max_fields=MOST_FIELDS, max_part_size=largest)
        try:
            found = await reading
        except LookupError as error:  # what the form says of its alphabet
            raise problem(400, f"the form cannot be read: {error}") from None
        try:
            yield found
        finally:
            await found.close()

    async def _chunks(self, request: Request) -> AsyncIterator[bytes]:
        """Its parts, counted and timed."""
        limits = self._hub.config.limits
        self._check_length(request.headers.get("content-length"), limits.body)
        end = asyncio.get_running_loop().time() + limits.body_seconds
        stream = aiter(request.stream())
        while True:
            try:
                async with asyncio.timeout_at(end):
                    chunk = await anext(stream, None)
            except TimeoutError:
                message = f"the body did not arrive within {limits.body_seconds:g} s"
                raise problem(408, message, headers=CLOSE) from None
            except ClientDisconnect:
                raise problem(400, "the client left before the body was there", headers=CLOSE) from None
            if chunk is None:
                return
            self._hub.bodies.take(len(chunk))
            self._taken += len(chunk)
            if self._taken > limits.body:
                raise _too_large(limits.body)
            yield chunk

    @staticmethod
    def _check_length(text: str | None, limit: int) -> None:
        if text is not None and text.isdigit() and int(text) > limit:
            raise _too_large(limit)


def _too_large(limit: int) -> Any:
    return problem(413, f"the body is larger than {limit:,} bytes")


def _parsed(data: bytes, depth: int) -> dict[str, Any]:
    try:
        found = json.loads(data.decode("utf-8"), parse_constant=_no_number)
    except UnicodeDecodeError:
        raise problem(400, "the body is no UTF-8") from None
    except RecursionError:
        raise problem(400, f"the body has more than {depth} levels") from None
    except ValueError as error:
        raise problem(400, f"the body is no JSON: {str(error)[:200]}") from None
    if not isinstance(found, dict):
        raise problem(400, f"the body is a JSON {type(found).__name__}, expected an object")
    for level, _ in containers(found):
        if level > depth:
            raise problem(400, f"the body has more than {depth} levels")
    return found


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number of JSON")


def containers(value: Any) -> Iterator[tuple[int, dict[str, Any] | list[Any]]]:
    """All objects and lists in a value, itself included, with their level from 1."""
    waiting: list[tuple[int, Any]] = [(1, value)]
    while waiting:
        level, item = waiting.pop()
        yield level, item
        inner = item.values() if isinstance(item, dict) else item
        waiting.extend((level + 1, part) for part in inner if isinstance(part, dict | list))
