"""The async twins of blocking calls: each in a thread of its own, cancelled with its task."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, Self, TypeVar

from cyllama.errors import CancelledError
from cyllama.llama.answers import Record
from cyllama.llama.streams import AnyOf

__all__ = ["AsyncStream", "in_thread"]

Result = TypeVar("Result")
Chunk = TypeVar("Chunk", bound=Record)


async def in_thread(call: Callable[..., Result], *args: Any, cancel: Any = None, **kwargs: Any) -> Result:
    """Run a blocking call in a thread; cancelling the task stops the call, and waits until it has stopped.

    A thread for each call, not a pool: a pool's size would limit how many requests can wait for a slot.
    """
    own = threading.Event()
    stop = AnyOf(own, cancel)
    outcome: Future[Result] = Future()

    def work() -> None:
        try:
            outcome.set_result(call(*args, cancel=stop, **kwargs))
        except BaseException as error:  # raised where it is awaited
            outcome.set_exception(error)

    threading.Thread(target=work, name="cyllama-llm", daemon=True).start()
    waiting = asyncio.wrap_future(outcome)
    try:
        return await asyncio.shield(waiting)
    except asyncio.CancelledError:
        own.set()
        with contextlib.suppress(CancelledError):
            left_over = await waiting
            if hasattr(left_over, "close"):
                left_over.close()
        raise


class AsyncStream(Generic[Chunk]):
    """The parts of an answer as they come, for ``async for``; leaving it with ``async with`` frees the slot."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        part = await in_thread(self._stream.next)
        if part is None:
            raise StopAsyncIteration
        found: Chunk = part
        return found

    async def aclose(self) -> None:
        """End the request."""
        self._stream.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()
