"""The async variants of the blocking calls: each runs in a thread, and is cancelled with its task."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Generic, Literal, Self, TypeVar, Unpack, overload

from cyllama._cancel import AnyCancel, Cancel
from cyllama.llama._calls import BlockingCalls
from cyllama.llama._message_types import Audio, Images, LoraScale, Messages, Paths, Prompt
from cyllama.llama._request_types import ChatOptions, CompletionOptions, InfillOptions
from cyllama.llama._vector_calls import Vectors
from cyllama.llama.responses import (
    ChatChunk,
    ChatCompletion,
    Completion,
    CompletionChunk,
    Infill,
    Record,
    RerankResult,
)
from cyllama.llama.streaming import Stream
from cyllama.llama.tools import tool_loop

__all__ = ["AsyncCalls", "AsyncStream", "run_in_thread"]

T = TypeVar("T")
Chunk = TypeVar("Chunk", bound=Record)
Result = TypeVar("Result", bound=Record)


async def run_in_thread(call: Callable[..., T], *args: Any, cancel: Cancel | None = None, **kwargs: Any) -> T:
    """Run a blocking call in a thread; cancelling the task stops the call and waits for its end.

    Each call has its own thread: the size of a pool would limit how many requests can wait for a slot.
    """
    own = threading.Event()
    return await _run(functools.partial(call, *args, cancel=AnyCancel(own, cancel), **kwargs), own)


async def _run(call: Callable[[], T], stop: threading.Event) -> T:
    outcome: Future[T] = Future()

    def target() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # raised where the outcome is awaited
            outcome.set_exception(error)

    threading.Thread(target=target, name="cyllama-llm", daemon=True).start()
    waiting = asyncio.wrap_future(outcome)
    try:
        return await asyncio.shield(waiting)
    except asyncio.CancelledError:
        stop.set()
        while not waiting.done():  # a task may be cancelled more than once
            with contextlib.suppress(Exception, asyncio.CancelledError):
                await asyncio.shield(waiting)
        unused: Any = None if waiting.exception() else waiting.result()
        if hasattr(unused, "close"):
            unused.close()
        raise


class AsyncStream(Generic[Chunk, Result]):
    """An asynchronous iterator over the chunks of a response; leaving ``async with`` frees the slot."""

    def __init__(self, stream: Stream[Chunk, Result]) -> None:
        self._stream = stream

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        chunk = await run_in_thread(self._stream.next)
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def result(self) -> Result:
        """Read the remaining chunks and return the whole response, as `Stream.result`."""
        async for _ in self:
            pass
        return self._stream.result()

    async def aclose(self) -> None:
        """Stop the request."""
        self._stream.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<Async{repr(self._stream)[1:]}"


class AsyncCalls(BlockingCalls):
    """The calls of `LLM` for asyncio: the same names with an ``a``, the same arguments.

    Cancelling a task frees its slot.

    >>> from cyllama import LLM
    >>> async def chat() -> None:                                       # doctest: +SKIP
    ...     async with LLM("smollm2-135m-instruct") as llm:
    ...         print((await llm.achat("Hello")).text)
    """

    @overload
    async def acomplete(
        self,
        prompt: Prompt | Sequence[Prompt],
        *,
        stream: Literal[False] = False,
        cancel: Cancel | None = None,
        **options: Unpack[CompletionOptions],
    ) -> Completion: ...
    @overload
    async def acomplete(
        self,
        prompt: Prompt | Sequence[Prompt],
        *,
        stream: Literal[True],
        cancel: Cancel | None = None,
        **options: Unpack[CompletionOptions],
    ) -> AsyncStream[CompletionChunk, Completion]: ...
    @overload
    async def acomplete(
        self,
        prompt: Prompt | Sequence[Prompt],
        *,
        stream: bool,
        cancel: Cancel | None = None,
        **options: Unpack[CompletionOptions],
    ) -> Completion | AsyncStream[CompletionChunk, Completion]: ...
    async def acomplete(
        self,
        prompt: Prompt | Sequence[Prompt],
        *,
        stream: bool = False,
        cancel: Cancel | None = None,
        **options: Unpack[CompletionOptions],
    ) -> Completion | AsyncStream[CompletionChunk, Completion]:
        """Continue a text, as `complete`; with `stream`, return an `AsyncStream`."""
        call = functools.partial(self.complete, prompt, stream=stream, **options)
        found = await run_in_thread(call, cancel=cancel)
        return AsyncStream(found) if isinstance(found, Stream) else found

    @overload
    async def achat(
        self,
        messages: Messages,
        *,
        images: Images | None = None,
        audio: Audio | None = None,
        stream: Literal[False] = False,
        run_tools: bool = False,
        max_rounds: int = 8,
        cancel: Cancel | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatCompletion: ...
    @overload
    async def achat(
        self,
        messages: Messages,
        *,
        images: Images | None = None,
        audio: Audio | None = None,
        stream: Literal[True],
        run_tools: bool = False,
        max_rounds: int = 8,
        cancel: Cancel | None = None,
        **options: Unpack[ChatOptions],
    ) -> AsyncStream[ChatChunk, ChatCompletion]: ...
    @overload
    async def achat(
        self,
        messages: Messages,
        *,
        images: Images | None = None,
        audio: Audio | None = None,
        stream: bool,
        run_tools: bool = False,
        max_rounds: int = 8,
        cancel: Cancel | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatCompletion | AsyncStream[ChatChunk, ChatCompletion]: ...
    async def achat(
        self,
        messages: Messages,
        *,
        images: Images | None = None,
        audio: Audio | None = None,
        stream: bool = False,
        run_tools: bool = False,
        max_rounds: int = 8,
        cancel: Cancel | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatCompletion | AsyncStream[ChatChunk, ChatCompletion]:
        """Generate the next message of a chat, as `chat`; with `stream`, return an `AsyncStream`.

        The coroutines of tools run in this event loop.
        """
        call = functools.partial(
            self.chat,
            messages,
            images=images,
            audio=audio,
            stream=stream,
            run_tools=run_tools,
            max_rounds=max_rounds,
            **options,
        )
        context = contextvars.copy_context()
        context.run(tool_loop.set, asyncio.get_running_loop())
        found = await run_in_thread(functools.partial(context.run, call), cancel=cancel)
        return AsyncStream(found) if isinstance(found, Stream) else found

    async def ainfill(
        self, prefix: str, suffix: str, *, cancel: Cancel | None = None, **options: Unpack[InfillOptions]
    ) -> Infill:
        """Generate the text between two texts, as `infill`."""
        return await run_in_thread(functools.partial(self.infill, prefix, suffix, **options), cancel=cancel)

    @overload
    async def aembed(self, texts: str, *, normalize: bool = True, cancel: Cancel | None = None) -> Vectors: ...
    @overload
    async def aembed(
        self, texts: Sequence[Prompt], *, normalize: bool = True, cancel: Cancel | None = None
    ) -> Vectors | list[Vectors]: ...
    async def aembed(
        self, texts: str | Sequence[Prompt], *, normalize: bool = True, cancel: Cancel | None = None
    ) -> Vectors | list[Vectors]:
        """Compute the vectors of texts, as `embed`."""
        return await run_in_thread(self.embed, texts, normalize=normalize, cancel=cancel)

    async def arerank(
        self, query: str, documents: Sequence[str], *, top_n: int | None = None, cancel: Cancel | None = None
    ) -> list[RerankResult]:
        """Order documents by their relevance for a query, as `rerank`."""
        return await run_in_thread(self.rerank, query, documents, top_n=top_n, cancel=cancel)

    async def atokenize(self, text: str, *, add_special: bool = False, parse_special: bool = True) -> list[int]:
        """Return the tokens of a text, as `tokenize`."""
        return await _run_short(self.tokenize, text, add_special=add_special, parse_special=parse_special)

    async def adetokenize(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, as `detokenize`."""
        return await _run_short(self.detokenize, tokens)

    async def arender(
        self,
        messages: Messages,
        *,
        images: Images | None = None,
        audio: Audio | None = None,
        **options: Unpack[ChatOptions],
    ) -> str:
        """Return the prompt that the chat template makes of messages, as `render`."""
        return await _run_short(self.render, messages, images=images, audio=audio, **options)

    async def acount_tokens(
        self,
        messages: Messages,
        *,
        images: Images | None = None,
        audio: Audio | None = None,
        **options: Unpack[ChatOptions],
    ) -> int:
        """Return the number of tokens of a chat's prompt, as `count_tokens`."""
        return await _run_short(self.count_tokens, messages, images=images, audio=audio, **options)

    async def asave_state(self, path: Paths, *, slot: int | Completion | ChatCompletion | Infill | None = None) -> int:
        """Write the prompt cache of a slot to a file, as `save_state`."""
        return await _run_short(self.save_state, path, slot=slot)

    async def aload_state(self, path: Paths, *, slot: int | None = None) -> int:
        """Read the prompt cache of a slot from a file, as `load_state`."""
        return await _run_short(self.load_state, path, slot=slot)

    async def aset_loras(self, weights: Mapping[Paths, float] | Mapping[str, float] | Sequence[LoraScale]) -> None:
        """Set the weights of the loaded adapters, as `set_loras`."""
        await _run_short(self.set_loras, weights)

    async def aclose(self) -> None:
        """Stop the running requests and free the model, as `close`."""
        await _run_short(self.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()


async def _run_short(call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Run a call in a thread that is too short to be stopped."""
    return await _run(functools.partial(call, *args, **kwargs), threading.Event())
