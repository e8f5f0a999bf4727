"""Requests to the engine: errors, cancelling, streams, and closing while requests run."""

from __future__ import annotations

import json
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, Self, TypeVar

from cyllama._cancel import AnyCancel, Cancel
from cyllama._native._exit import close_at_exit
from cyllama._native.memory import return_memory
from cyllama.errors import CancelledError, ClosedError, EngineError, GrammarError, InUseError
from cyllama.llama._chat_request import encode_body
from cyllama.llama._engine import Engine, EngineResponse
from cyllama.llama._enums import PoolingType
from cyllama.llama._errors import explain_grammar_error, handler_error, response_error
from cyllama.llama._media import Attachments, MediaInput
from cyllama.llama._properties import ModelProperties, Slot
from cyllama.llama._slots import hides_details
from cyllama.llama.responses import Record
from cyllama.llama.streaming import ChunkMaker, NextRequest, RawResponse, Stream

__all__ = ["EngineClient"]

Chunk = TypeVar("Chunk", bound=Record)
Result = TypeVar("Result", bound=Record)


class EngineClient:
    """An engine with its requests; base class of `LLM`.

    Parameters
    ----------
    path : Path
        The model file.
    arguments : sequence of str
        Options of upstream's parser.
    on_progress : callable, optional
    cancel : Cancel, optional
    """

    _media: MediaInput
    _meta: dict[str, Any]

    def __init__(
        self,
        path: Path,
        arguments: Sequence[str],
        *,
        on_progress: Callable[[float], object] | None,
        cancel: Cancel | None,
    ) -> None:
        self._path = path
        self._open: weakref.WeakSet[Stream[Any, Any] | RawResponse] = weakref.WeakSet()
        self._lock, self._closing = threading.Lock(), threading.Event()
        self._engine = Engine(arguments, progress=on_progress, cancel=cancel)
        close_at_exit(self)

    def request(
        self,
        route: str,
        body: bytes | Mapping[str, Any] = b"",
        params: Mapping[str, str] | None = None,
        *,
        cancel: Cancel | None = None,
    ) -> RawResponse:
        """Send a request to a handler of upstream as it is, for servers.

        Parameters
        ----------
        route, params
            As of ``Engine.request``.
        body : bytes or mapping
            JSON; the images and audio in a mapping are decoded.
        cancel : Cancel, optional

        Returns
        -------
        RawResponse
            The status and the bytes. An error in a response is not raised.
        """
        stop = AnyCancel(cancel, self._closing)
        attached = Attachments()
        raw = body if isinstance(body, bytes) else encode_body(self._media.decode_body(body, stop), attached.refer)
        found = RawResponse(self._exchange(route, raw, params, stop, attached), stop)
        self._open.add(found)
        return found

    def request_json(self, route: str, body: Mapping[str, Any], *, cancel: Cancel | None = None) -> Any:
        """Send a request to a handler of upstream, and return its response; arguments as of `request`.

        Raises
        ------
        ValueError, UnsupportedError, ContextFullError, EngineError, CancelledError
        """
        return self._json(route, self._media.decode_body(body, AnyCancel(cancel, self._closing)), cancel)

    @property
    def failure(self) -> str | None:
        """The reason why the scheduler has stopped; None while it runs."""
        return self._engine.failure

    @property
    def pooling_type(self) -> PoolingType:
        """How the vectors of a text's tokens become one vector."""
        return self._engine.pooling_type

    @property
    def meta(self) -> Mapping[str, Any]:
        """Sizes of the model: ``n_ctx`` (tokens of a slot), ``n_ctx_train``, ``n_vocab``, ``n_embd``, ``size``, ..."""
        return dict(self._meta)

    @property
    def metrics(self) -> list[Slot]:
        """The state of each slot."""
        return [Slot(slot) for slot in self._json("slots", None, None)]

    @property
    def properties(self) -> ModelProperties:
        """The settings, the chat template and the path of the model."""
        return ModelProperties(self._json("props", None, None))

    def close(self) -> None:
        """Stop the running requests and free the model; requests of other threads raise ClosedError."""
        self._closing.set()
        with self._lock:
            while not self._engine.closed:
                try:
                    for stream in list(self._open):
                        stream.abort()
                    self._engine.close()
                except InUseError:  # other threads stop within 50 ms
                    time.sleep(0.005)
        return_memory()

    def __enter__(self) -> Self:
        if self._engine.closed:
            raise ClosedError("the LLM is closed")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._path.stem}{' (closed)' if self._engine.closed else ''}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an LLM cannot be pickled, it holds native memory: load it again where it is needed")

    def _request(
        self, route: str, body: Any, cancel: Cancel | None, params: Mapping[str, str] | None = None
    ) -> EngineResponse:
        attached = Attachments()
        raw = encode_body(body, attached.refer)
        response = self._exchange(route, raw, params, AnyCancel(cancel, self._closing), attached)
        if response.status != 200:
            with response:
                error = response_error(json.loads(response.data)["error"])
            grammar = body.get("grammar") if isinstance(error, GrammarError) else None
            raise (explain_grammar_error(grammar, self._path) if grammar else None) or error
        return response

    def _exchange(
        self, route: str, raw: bytes, params: Mapping[str, str] | None, cancel: AnyCancel, attached: Attachments
    ) -> EngineResponse:
        try:
            return self._engine.request(route, raw, params, files=attached.files, cancel=cancel)
        except CancelledError:
            if self._closing.is_set():
                raise ClosedError("the model was closed during the request") from None
            raise
        except EngineError as error:
            raise (error if error.aborted else handler_error(error)) from None

    def _json(self, route: str, body: Any, cancel: Cancel | None, params: Mapping[str, str] | None = None) -> Any:
        with self._request(route, body, cancel, params) as response:
            return json.loads(response.data)

    def _stream(
        self,
        route: str,
        body: dict[str, Any],
        chunk_type: type[Chunk],
        cancel: Cancel | None,
        make_result: Callable[[dict[str, Any]], Result],
        make_chunks: Callable[[], ChunkMaker],
        next_request: NextRequest | None = None,
    ) -> Stream[Chunk, Result]:
        response = self._request(route, {**body, "stream": True}, cancel)
        stop = AnyCancel(cancel, self._closing)
        found = Stream(
            response,
            chunk_type,
            stop,
            make_result=make_result,
            make_chunks=make_chunks,
            next_request=next_request,
            hide_details=hides_details(body),
        )
        self._open.add(found)
        return found
