"""Run the requests of a batch: many at once, each result written once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from cyllama.server.batches.requests import BatchRequest
from cyllama.server.config import ServerConfig

__all__ = ["DEFAULT_SLOTS", "Send", "default_parallel", "run_requests"]

DEFAULT_SLOTS = 4
"""Slots of a language model without ``n_parallel``."""

Send = Callable[[BatchRequest], Awaitable[Mapping[str, Any]]]
"""Returns the line of a request's result."""


def default_parallel(config: ServerConfig) -> int:
    """Return twice the slots of the language model with the most: a slot that becomes free finds the next request."""
    slots = [entry.settings.get("n_parallel") or DEFAULT_SLOTS for entry in config.models if entry.kind == "llm"]
    return 2 * max(slots, default=DEFAULT_SLOTS // 2)


async def run_requests(
    requests: Iterator[BatchRequest],
    send: Send,
    write: Callable[[Mapping[str, Any]], None],
    *,
    window: int,
    ordered: bool = False,
) -> None:
    """Run requests, and write their results.

    Parameters
    ----------
    requests : iterator of BatchRequest
        Read in a thread, as far as the window reaches.
    send, write : callable
    window : int
        Requests that run, or whose results wait for earlier ones.
    ordered : bool
        Write the results in the order of the requests.

    Raises
    ------
    Exception
        Of `send` or `write`; the running requests are cancelled, and their results are not written.
    """
    places = asyncio.Semaphore(window)

    async def run(request: BatchRequest, before: asyncio.Event | None, done: asyncio.Event) -> None:
        result = await send(request)
        if before is not None:
            await before.wait()
        write(result)
        done.set()
        places.release()

    before: asyncio.Event | None = None
    try:
        async with asyncio.TaskGroup() as group:
            while True:
                await places.acquire()
                request = await asyncio.to_thread(next, requests, None)
                if request is None:
                    break
                done = asyncio.Event()
                group.create_task(run(request, before, done))
                before = done if ordered else None
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
