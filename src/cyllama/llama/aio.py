"""The async twins of blocking calls: each in a thread of its own, cancelled with its task."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, Self, TypeVar

from cyllama.llama.answers import Record
from cyllama.llama.streams import AnyOf

__all__ = ["AsyncCalls", "AsyncStream", "in_thread"]

Result = TypeVar("Result")
Chunk = TypeVar("Chunk", bound=Record)


async def in_thread(call: Callable[..., Result], *args: Any, cancel: Any = None, **kwargs: Any) -> Result:
    """Run a blocking call in a thread; cancelling the task stops the call, and waits until it has stopped.

    A thread for each call, not a pool: a pool's size would limit how many requests can wait for a slot.
    """
    own = threading.Event()
    return await _awaited(functools.partial(call, *args, cancel=AnyOf(own, cancel), **kwargs), own)


async def _awaited(call: Callable[[], Result], own: threading.Event) -> Result:
    outcome: Future[Result] = Future()

    def work() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # raised where it is awaited
            outcome.set_exception(error)

    threading.Thread(target=work, name="cyllama-llm", daemon=True).start()
    waiting = asyncio.wrap_future(outcome)
    try:
        return await asyncio.shield(waiting)
    except asyncio.CancelledError:
        own.set()
        while not waiting.done():  # a task may be cancelled more than once
            with contextlib.suppress(Exception, asyncio.CancelledError):
                await asyncio.shield(waiting)
        left_over: Any = None if waiting.exception() else waiting.result()
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

    async def result(self) -> Any:
        """Read what is still to come, and give the whole answer, as `Stream.result`."""
        async for _ in self:
            pass
        return self._stream.result()

    async def aclose(self) -> None:
        """End the request."""
        self._stream.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()


class AsyncCalls:
    """The calls of `LLM` for asyncio: the same names with an ``a``, the same arguments; cancelled tasks free slots.

    >>> from cyllama import LLM
    >>> async def talk() -> None:                                       # doctest: +SKIP
    ...     async with LLM("smollm2-135m-instruct") as llm:
    ...         print((await llm.achat("Hello")).text)
    """

    async def acomplete(self: Any, prompt: Any, *, stream: bool = False, **fields: Any) -> Any:
        """`LLM.complete`; with `stream` for ``async for``."""
        found = await in_thread(self.complete, prompt, stream=stream, **fields)
        return AsyncStream(found) if stream else found

    async def achat(self: Any, messages: Any, *, stream: bool = False, **fields: Any) -> Any:
        """`LLM.chat`; tools that are coroutine functions run in this event loop."""
        if fields.get("run_tools") and fields.get("tools"):
            fields["tools"] = _tools_of_loop(fields["tools"], asyncio.get_running_loop())
        found = await in_thread(self.chat, messages, stream=stream, **fields)
        return AsyncStream(found) if stream else found

    async def ainfill(self: Any, prefix: str, suffix: str, **fields: Any) -> Any:
        """`LLM.infill`."""
        return await in_thread(self.infill, prefix, suffix, **fields)

    async def aembed(self: Any, texts: Any, *, normalize: bool = True, cancel: Any = None) -> Any:
        """`LLM.embed`."""
        return await in_thread(self.embed, texts, normalize=normalize, cancel=cancel)

    async def arerank(self: Any, query: str, documents: Sequence[str], *, top_n: int | None = None,
                      cancel: Any = None) -> Any:  # fmt: skip
        """`LLM.rerank`."""
        return await in_thread(self.rerank, query, documents, top_n=top_n, cancel=cancel)

    async def atokenize(self: Any, text: str, **more: Any) -> Any:
        """`LLM.tokenize`."""
        return await _waited_for(self.tokenize, text, **more)

    async def adetokenize(self: Any, tokens: Sequence[int]) -> Any:
        """`LLM.detokenize`."""
        return await _waited_for(self.detokenize, tokens)

    async def arender(self: Any, messages: Any, **fields: Any) -> Any:
        """`LLM.render`."""
        return await _waited_for(self.render, messages, **fields)

    async def acount_tokens(self: Any, messages: Any, **fields: Any) -> Any:
        """`LLM.count_tokens`."""
        return await _waited_for(self.count_tokens, messages, **fields)

    async def asave_state(self: Any, path: Any, *, slot: int = 0) -> None:
        """`LLM.save_state`."""
        await _waited_for(self.save_state, path, slot=slot)

    async def aload_state(self: Any, path: Any, *, slot: int = 0) -> None:
        """`LLM.load_state`."""
        await _waited_for(self.load_state, path, slot=slot)

    async def aset_loras(self: Any, weights: Any) -> None:
        """`LLM.set_loras`."""
        await _waited_for(self.set_loras, weights)

    async def aclose(self: Any) -> None:
        """`LLM.close`."""
        await _waited_for(self.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()


async def _waited_for(call: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
    """As `in_thread`, for what takes no time worth stopping."""
    return await _awaited(functools.partial(call, *args, **kwargs), threading.Event())


def _tools_of_loop(tools: Sequence[Any], loop: asyncio.AbstractEventLoop) -> list[Any]:
    """Tools that a thread can call: coroutine functions run in the loop, the thread waits for them."""

    def called(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            return asyncio.run_coroutine_threadsafe(function(*args, **kwargs), loop).result()

        return run

    return [called(tool) if inspect.iscoroutinefunction(tool) else tool for tool in tools]
