"""`ModelPool`: a cache of loaded models, shared between threads, within a memory budget."""

from __future__ import annotations

import contextlib
import enum
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self, overload

from cyllama._cancel import POLL_SECONDS, Cancel, raise_if_cancelled
from cyllama._native.memory import free_memory
from cyllama.errors import CancelledError, ClosedError, InUseError, OutOfMemoryError
from cyllama.pipelines._model_spec import Name, Spec

if TYPE_CHECKING:
    from cyllama.llama.llm import LLM
    from cyllama.llava import Llava
    from cyllama.sd import StableDiffusion
    from cyllama.whisper import Whisper

__all__ = ["LoadedModel", "ModelPool", "model_size"]

WAIT_SECONDS = 30.0
MEBIBYTE = 1 << 20


class _State(enum.Enum):
    LOADING = enum.auto()
    READY = enum.auto()
    FAILED = enum.auto()


@dataclass(frozen=True)
class LoadedModel:
    """The state of a model of a pool.

    Attributes
    ----------
    kind : str
    name : str, path or None
        The name of the first request.
    settings : mapping
        The settings that it was loaded with.
    size : int
        Bytes of the budget.
    users : int
        Number of current users.
    ready : bool
        False while the model is loading.
    seconds : float
        Loading time, including the download.
    """

    kind: str
    name: Name
    settings: Mapping[str, Any]
    size: int
    users: int
    ready: bool
    seconds: float


class _Entry:
    """A model that is loaded or loading; the pool's lock protects its fields."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.state = _State.LOADING
        self.model: Any = None
        self.error: Exception | None = None
        self.users = 0
        self.size = 0
        self.seconds = 0.0
        self.used = 0  # the pool's clock at the last use

    def info(self) -> LoadedModel:
        ready = self.state is _State.READY
        return LoadedModel(
            self.spec.kind, self.spec.name, self.spec.settings, self.size, self.users, ready, self.seconds
        )


class _Hook:
    """A callback that records whether it raised."""

    def __init__(self, call: Callable[..., object]) -> None:
        self._call = call
        self.failed = False

    def __call__(self, *values: Any) -> object:
        try:
            return self._call(*values)
        except BaseException:
            self.failed = True
            raise


class ModelPool:
    """A pool of loaded models: loads a model on its first use and keeps it for later uses.

    Parameters
    ----------
    memory : int, optional
        Budget of all loaded models in bytes; by default the free memory of the machine and of the process's control
        group.
    wait : float
        Seconds to wait until models in use are released, if they leave no memory. 0 does not wait.

    Notes
    -----
    A model in use is never closed. If a new model needs memory, unused models are closed, the least recently used
    first. Sizes are estimated before loading; calls need additional memory while they run.

    Thread safety: all methods may be called from several threads. Concurrent requests for the same model with the same
    settings load it once and share it; different models load concurrently.

    >>> from cyllama.pipelines import ModelPool
    >>> with ModelPool(memory=2 << 30) as pool:                                   # doctest: +SKIP
    ...     with pool.use("llm", "smollm2-135m-instruct", n_ctx=2048) as llm:
    ...         print(llm.chat("Please tell me the capital of France.").text)
    """

    def __init__(self, memory: int | None = None, *, wait: float = WAIT_SECONDS) -> None:
        if memory is not None and (isinstance(memory, bool) or not isinstance(memory, int)):
            raise TypeError(f"memory is {memory!r}, expected a number of bytes")
        if memory is not None and memory <= 0:
            raise ValueError(f"memory is {memory}, expected at least 1 byte")
        if isinstance(wait, bool) or not isinstance(wait, int | float):
            raise TypeError(f"wait is {wait!r}, expected a number of seconds")
        if not wait >= 0:
            raise ValueError(f"wait is {wait}, expected 0 or more seconds")
        self._memory, self._wait = memory, float(wait)
        self._changed = threading.Condition()
        self._entries: dict[Spec, _Entry] = {}
        self._closing: list[_Entry] = []  # removed, not freed yet
        self._clock = itertools.count(1)
        self._closed = False

    @property
    def memory(self) -> int | None:
        """The budget in bytes."""
        return self._memory

    @property
    def closed(self) -> bool:
        """Whether the pool is closed."""
        return self._closed

    @property
    def loaded(self) -> tuple[LoadedModel, ...]:
        """The models, the least recently used first; models that are loading come last."""
        with self._changed:
            entries = sorted(self._entries.values(), key=lambda entry: (entry.state is _State.LOADING, entry.used))
            return tuple(entry.info() for entry in entries)

    if TYPE_CHECKING:

        @overload
        def use(
            self,
            kind: Literal["llm"],
            name: Name,
            *,
            on_progress: Callable[[float], object] | None = None,
            cancel: Cancel | None = None,
            **settings: object,
        ) -> contextlib.AbstractContextManager[LLM]: ...
        @overload
        def use(
            self,
            kind: Literal["whisper"],
            name: Name,
            *,
            on_progress: Callable[..., object] | None = None,
            cancel: Cancel | None = None,
            **settings: object,
        ) -> contextlib.AbstractContextManager[Whisper]: ...
        @overload
        def use(
            self,
            kind: Literal["sd"],
            name: Name,
            *,
            on_progress: Callable[..., object] | None = None,
            cancel: Cancel | None = None,
            **settings: object,
        ) -> contextlib.AbstractContextManager[StableDiffusion]: ...
        @overload
        def use(
            self,
            kind: Literal["llava"],
            name: Name,
            *,
            on_progress: Callable[..., object] | None = None,
            cancel: Cancel | None = None,
            **settings: object,
        ) -> contextlib.AbstractContextManager[Llava]: ...
        @overload
        def use(
            self,
            kind: str,
            name: Name,
            *,
            on_progress: Callable[..., object] | None = None,
            cancel: Cancel | None = None,
            **settings: object,
        ) -> contextlib.AbstractContextManager[Any]: ...

    @contextlib.contextmanager
    def use(
        self,
        kind: str,
        name: Name,
        *,
        on_progress: Callable[..., object] | None = None,
        cancel: Cancel | None = None,
        **settings: object,
    ) -> Iterator[Any]:
        """Use a model within a ``with`` block, which must not close it.

        Parameters
        ----------
        kind : str
            ``"llm"``, ``"whisper"``, ``"sd"`` or ``"llava"``.
        name : str or path
            A name of `cyllama.models`, or a file.
        on_progress : callable, optional
            The `on_progress` callback of the class, called if this call loads the model.
        cancel : object with ``is_set()``, optional
            Stops loading and waiting. Another request that waits for the same model then loads it.
        **settings
            Keyword arguments of the class: `cyllama.LLM`, `cyllama.whisper.Whisper`, `cyllama.sd.StableDiffusion` or
            `cyllama.llava.Llava`.

        Yields
        ------
        LLM, Whisper, StableDiffusion or Llava

        Raises
        ------
        ValueError, TypeError
            The kind or a setting is invalid.
        OutOfMemoryError
            The model is larger than the budget, or the models in use left too little memory for `wait` seconds.
        ClosedError
            The pool is closed.
        CancelledError
        FileNotFoundError, ModelLoadError, ...
            See the class. All requests that wait for a model that failed to load get its exception.
        """
        entry = self._take(Spec.of(kind, name, settings), on_progress, cancel)
        try:
            yield entry.model
        finally:
            self._give_back(entry)

    def unload(
        self, kind: str | None = None, name: Name = None, settings: Mapping[str, object] | None = None
    ) -> tuple[LoadedModel, ...]:
        """Close unused models: all, those of a kind, those of a name, or the one with a name and settings.

        Returns
        -------
        tuple of LoadedModel
            The models that were closed.
        """
        spec = None if name is None and settings is None else Spec.of(kind or "llm", name, settings or {})

        def chosen(other: Spec) -> bool:
            if kind not in (None, other.kind):
                return False
            return spec is None or (other == spec if settings is not None else other.identity == spec.identity)

        closed: list[LoadedModel] = []
        kept: set[int] = set()
        while True:
            with self._changed:
                entry = self._unused(kept, chosen)
                if entry is None:
                    return tuple(closed)
                info = entry.info()
                self._remove(entry)
            if self._free(entry):
                closed.append(info)
            else:
                kept.add(id(entry))

    def close(self) -> None:
        """Close the pool and all models.

        Raises
        ------
        InUseError
            A model is in use or loading; nothing was closed.
        """
        with self._changed:
            used = [entry.spec for entry in self._entries.values() if entry.users]
            if used:
                names = ", ".join(f"{spec.kind} {spec.identity}" for spec in used)
                raise InUseError(f"the pool cannot be closed: in use are {names}")
            self._closed = True
            entries = list(self._entries.values())
            self._entries.clear()
            self._changed.notify_all()
        with contextlib.ExitStack() as stack:
            for entry in entries:
                stack.callback(entry.model.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _take(self, spec: Spec, on_progress: Callable[..., object] | None, cancel: Cancel | None) -> _Entry:
        while True:
            with self._changed:
                if self._closed:
                    raise ClosedError("this ModelPool is closed")
                entry = self._entries.get(spec)
                ours = entry is None
                if entry is None:
                    entry = self._entries[spec] = _Entry(spec)
                entry.users += 1
            if ours:
                self._load(entry, on_progress, cancel)
                return entry
            if self._wait_until_loaded(entry, cancel):
                return entry

    def _give_back(self, entry: _Entry) -> None:
        with self._changed:
            entry.users -= 1
            entry.used = next(self._clock)
            self._changed.notify_all()

    def _load(self, entry: _Entry, on_progress: Callable[..., object] | None, cancel: Cancel | None) -> None:
        started = time.perf_counter()
        hook = None if on_progress is None else _Hook(on_progress)
        try:
            self._reserve(entry, entry.spec.size(), cancel)
            model = entry.spec.load(hook, cancel)
        except BaseException as error:
            ours = isinstance(error, CancelledError) or (hook is not None and hook.failed)
            with self._changed:
                del self._entries[entry.spec]
                entry.state = _State.FAILED
                if isinstance(error, Exception) and not ours:  # else the next waiting thread loads it
                    entry.error = error
                self._changed.notify_all()
            raise
        with self._changed:
            entry.model, entry.state = model, _State.READY
            entry.seconds = time.perf_counter() - started
            entry.used = next(self._clock)
            self._changed.notify_all()

    def _wait_until_loaded(self, entry: _Entry, cancel: Cancel | None) -> bool:
        """Wait until another thread has loaded the model; return False if that thread was stopped."""
        with self._changed:
            try:
                while entry.state is _State.LOADING:
                    self._pause(cancel)
            except BaseException:
                entry.users -= 1
                self._changed.notify_all()
                raise
            if entry.error is not None:
                raise entry.error
            return entry.state is _State.READY

    def _reserve(self, entry: _Entry, size: int, cancel: Cancel | None) -> None:
        """Reserve `size` bytes for the entry; close unused models until they are available."""
        until = time.monotonic() + self._wait
        kept: set[int] = set()
        while True:
            with self._changed:
                if self._memory is not None and size > self._memory:
                    raise self._out_of_memory(entry, size, self._memory)
                available = self._available()
                if size <= available:
                    entry.size = size
                    return
                unused = self._unused(kept)
                if unused is None:
                    others = self._closing or any(other is not entry for other in self._entries.values())
                    if not others or time.monotonic() >= until:
                        raise self._out_of_memory(entry, size, available)
                    self._pause(cancel, POLL_SECONDS)
                    continue
                self._remove(unused)
            if not self._free(unused):
                kept.add(id(unused))

    def _available(self) -> int:
        if self._memory is not None:
            return self._memory - sum(entry.size for entry in (*self._entries.values(), *self._closing))
        loading = (entry.size for entry in self._entries.values() if entry.state is _State.LOADING)
        return free_memory() - sum(loading)

    def _unused(self, kept: set[int], chosen: Callable[[Spec], bool] = lambda spec: True) -> _Entry | None:
        found = [
            entry
            for entry in self._entries.values()
            if entry.state is _State.READY and not entry.users and id(entry) not in kept and chosen(entry.spec)
        ]
        return min(found, key=lambda entry: entry.used, default=None)

    def _remove(self, entry: _Entry) -> None:
        del self._entries[entry.spec]
        self._closing.append(entry)

    def _free(self, entry: _Entry) -> bool:
        """Close a removed model, without the lock; if it is still in use, put it back and return False."""
        try:
            entry.model.close()
            freed = True
        except InUseError:  # such as by an iterator of segments that is still open
            freed = False
        with self._changed:
            self._closing.remove(entry)
            if not freed and not self._closed:
                self._entries.setdefault(entry.spec, entry)
            self._changed.notify_all()
        return freed

    def _pause(self, cancel: Cancel | None, seconds: float | None = None) -> None:
        """Wait for a change, with the lock held before and after."""
        raise_if_cancelled(cancel, "the wait for a model")
        self._changed.wait(POLL_SECONDS if cancel is not None else seconds)

    def _out_of_memory(self, entry: _Entry, size: int, available: int) -> OutOfMemoryError:
        others = [other for other in (*self._entries.values(), *self._closing) if other is not entry]
        held = "".join(f"; {other.spec.kind} {other.spec.identity} holds {_mebibytes(other.size)}" for other in others)
        budget = "are free" if self._memory is None else f"of the pool's {_mebibytes(self._memory)} are left"
        return OutOfMemoryError(
            f"{entry.spec.kind} {entry.spec.identity} needs {_mebibytes(size)} of memory, but "
            f"{_mebibytes(max(0, available))} {budget}{held}"
        )


def model_size(kind: str, name: Name, **settings: object) -> int:
    """Estimate the memory of a model in bytes, as `ModelPool` does before it loads one.

    Parameters
    ----------
    kind, name, **settings
        As of `ModelPool.use`.

    Raises
    ------
    ValueError, TypeError, FileNotFoundError, ModelLoadError

    Notes
    -----
    Language models: weights, context and buffers. Other models: the size of their files. Memory that a call needs while
    it runs is not included.
    """
    return Spec.of(kind, name, settings).size()


def _mebibytes(size: int) -> str:
    return f"{-(-size // MEBIBYTE):,} MiB"
