"""`ModelPool`: loaded models by name, shared by those who use them, within a memory budget."""

from __future__ import annotations

import contextlib
import enum
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from cyllama._native.memory import free_memory
from cyllama.errors import CancelledError, ClosedError, InUseError, OutOfMemoryError
from cyllama.pipelines.kinds import Name, Spec

__all__ = ["LoadedModel", "ModelPool"]

LOOK = 0.05  # seconds between two looks at `cancel`, and at the machine's memory
WAIT_SECONDS = 30.0
MEBIBYTE = 1 << 20


class _State(enum.Enum):
    LOADING = enum.auto()
    READY = enum.auto()
    FAILED = enum.auto()


@dataclass(frozen=True)
class LoadedModel:
    """A model of a pool, as it was when it was asked for.

    Attributes
    ----------
    kind : str
    name : str, path or None
        As the first who asked for it wrote it.
    settings : mapping
        How it was loaded.
    size : int
        Bytes that it counts in the budget.
    users : int
        How many use it now.
    ready : bool
        False while it is loaded.
    seconds : float
        How long the loading took, with what was fetched.
    """

    kind: str
    name: Name
    settings: Mapping[str, Any]
    size: int
    users: int
    ready: bool
    seconds: float


class _Entry:
    """A model that is there or is on its way; its fields change only under the pool's lock."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.state = _State.LOADING
        self.model: Any = None
        self.error: Exception | None = None
        self.users = 0
        self.size = 0
        self.seconds = 0.0
        self.used = 0  # a count that only grows: the least recently used has the smallest

    def seen(self) -> LoadedModel:
        ready = self.state is _State.READY
        return LoadedModel(
            self.spec.kind, self.spec.name, self.spec.settings, self.size, self.users, ready, self.seconds
        )


class _Hook:
    """A callback that remembers whether it failed."""

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
    """Loads models when they are first used, and keeps them for the next who asks.

    Parameters
    ----------
    memory : int, optional
        Bytes that the loaded models may hold together; by default as much as the machine, and the control group of
        the process, have free.
    wait : float
        Seconds to wait for those who use other models, when these leave no room. 0 does not wait.

    Notes
    -----
    A model that is used is never closed. When another needs its room, models that nobody uses are closed, the least
    recently used first. Sizes are what `Spec.size` tells before loading: estimates, which a budget should leave some
    room above for what a call needs while it runs.

    Thread safety: may be used from many threads at once. Those who ask for the same model with the same settings get
    one loading and one model; different models load side by side.

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
        self._leaving: list[_Entry] = []  # no longer to be had, but not freed yet
        self._clock = itertools.count(1)
        self._closed = False

    @property
    def memory(self) -> int | None:
        """The budget in bytes."""
        return self._memory

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    @property
    def loaded(self) -> tuple[LoadedModel, ...]:
        """The models, the least recently used first; those on their way stand at the end."""
        with self._changed:
            entries = sorted(self._entries.values(), key=lambda entry: (entry.state is _State.LOADING, entry.used))
            return tuple(entry.seen() for entry in entries)

    @contextlib.contextmanager
    def use(
        self,
        kind: str,
        name: Name,
        *,
        on_progress: Callable[..., object] | None = None,
        cancel: Any = None,
        **settings: Any,
    ) -> Iterator[Any]:
        """Use a model for the length of a ``with`` block; it must not be closed there.

        Parameters
        ----------
        kind : str
            ``"llm"``, ``"whisper"``, ``"sd"`` or ``"llava"``.
        name : str or path
            A name of `cyllama.models`, or a file.
        on_progress : callable, optional
            Told of the loading, if it is this call that loads.
        cancel : object with ``is_set()``, optional
            Ends the loading and the waiting; others who wait for the same model load it then.
        **settings
            As of the class: `cyllama.LLM`, `cyllama.whisper.Whisper`, `cyllama.sd.StableDiffusion`,
            `cyllama.llava.Llava`.

        Yields
        ------
        LLM, Whisper, StableDiffusion or Llava

        Raises
        ------
        ValueError, TypeError
            There is no such kind, or the settings are not right.
        OutOfMemoryError
            It is larger than the budget, at once; or, after `wait` seconds, the models in use left no room for it.
        ClosedError
            The pool was closed.
        CancelledError
        FileNotFoundError, ModelLoadError, ...
            As of the class. A loading that failed leaves nothing; all who waited for it get its error.
        """
        entry = self._take(Spec.of(kind, name, settings), on_progress, cancel)
        try:
            yield entry.model
        finally:
            self._give_back(entry)

    def unload(self, kind: str | None = None, name: Name = None) -> tuple[LoadedModel, ...]:
        """Close models that nobody uses: all, those of a kind, or those of a name.

        Returns
        -------
        tuple of LoadedModel
            Those that were closed.
        """
        identity = None if name is None else Spec.of(kind or "llm", name, {}).identity
        gone: list[LoadedModel] = []
        kept: set[int] = set()
        while True:
            with self._changed:
                entry = self._unused(kept, kind, identity)
                if entry is None:
                    return tuple(gone)
                seen = entry.seen()
                self._remove(entry)
            if self._free(entry):
                gone.append(seen)
            else:
                kept.add(id(entry))

    def close(self) -> None:
        """Close all models; nothing can be used afterwards.

        Raises
        ------
        InUseError
            A model is used or loaded; nothing was closed.
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

    # ------------------------------------------------------------------------------------ inside

    def _take(self, spec: Spec, on_progress: Callable[..., object] | None, cancel: Any) -> _Entry:
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
            if self._loaded_by_another(entry, cancel):
                return entry

    def _give_back(self, entry: _Entry) -> None:
        with self._changed:
            entry.users -= 1
            entry.used = next(self._clock)
            self._changed.notify_all()

    def _load(self, entry: _Entry, on_progress: Callable[..., object] | None, cancel: Any) -> None:
        started = time.perf_counter()
        hook = None if on_progress is None else _Hook(on_progress)
        try:
            self._make_room(entry, entry.spec.size(), cancel)
            model = entry.spec.load(hook, cancel)
        except BaseException as error:
            ours = isinstance(error, CancelledError) or (hook is not None and hook.failed)
            with self._changed:
                del self._entries[entry.spec]
                entry.state = _State.FAILED
                if isinstance(error, Exception) and not ours:  # else the next one who waits shall try
                    entry.error = error
                self._changed.notify_all()
            raise
        with self._changed:
            entry.model, entry.state = model, _State.READY
            entry.seconds = time.perf_counter() - started
            entry.used = next(self._clock)
            self._changed.notify_all()

    def _loaded_by_another(self, entry: _Entry, cancel: Any) -> bool:
        """Wait for the one who loads it; False if that one gave up."""
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

    def _make_room(self, entry: _Entry, size: int, cancel: Any) -> None:
        """Claim `size` bytes for the entry; close what nobody uses until they are there."""
        until = time.monotonic() + self._wait
        kept: set[int] = set()
        while True:
            with self._changed:
                if self._memory is not None and size > self._memory:
                    raise self._no_room(entry, size, self._memory)
                room = self._room()
                if size <= room:
                    entry.size = size
                    return
                victim = self._unused(kept)
                if victim is None:
                    others = self._leaving or any(other is not entry for other in self._entries.values())
                    if not others or time.monotonic() >= until:
                        raise self._no_room(entry, size, room)
                    self._pause(cancel, LOOK)
                    continue
                self._remove(victim)
            if not self._free(victim):
                kept.add(id(victim))

    def _room(self) -> int:
        if self._memory is not None:
            return self._memory - sum(entry.size for entry in (*self._entries.values(), *self._leaving))
        coming = (entry.size for entry in self._entries.values() if entry.state is _State.LOADING)
        return free_memory() - sum(coming)

    def _unused(self, kept: set[int], kind: str | None = None, identity: str | None = None) -> _Entry | None:
        found = [
            entry
            for entry in self._entries.values()
            if entry.state is _State.READY
            and not entry.users
            and id(entry) not in kept
            and kind in (None, entry.spec.kind)
            and identity in (None, entry.spec.identity)
        ]
        return min(found, key=lambda entry: entry.used, default=None)

    def _remove(self, entry: _Entry) -> None:
        del self._entries[entry.spec]
        self._leaving.append(entry)

    def _free(self, entry: _Entry) -> bool:
        """Close a removed model, without the lock. False, and it is back, if a call still runs on it."""
        try:
            entry.model.close()
            freed = True
        except InUseError:  # such as an iterator of segments that outlived its block
            freed = False
        with self._changed:
            self._leaving.remove(entry)
            if not freed and not self._closed:
                self._entries.setdefault(entry.spec, entry)
            self._changed.notify_all()
        return freed

    def _pause(self, cancel: Any, seconds: float | None = None) -> None:
        """Wait for a change; the lock is held before and after."""
        if cancel is not None and cancel.is_set():
            raise CancelledError("cancelled while waiting for a model")
        self._changed.wait(LOOK if cancel is not None else seconds)

    def _no_room(self, entry: _Entry, size: int, room: int) -> OutOfMemoryError:
        others = [other for other in (*self._entries.values(), *self._leaving) if other is not entry]
        held = "".join(f"; {other.spec.kind} {other.spec.identity} holds {_mebibytes(other.size)}" for other in others)
        budget = "are free" if self._memory is None else f"of the pool's {_mebibytes(self._memory)} are left"
        return OutOfMemoryError(
            f"{entry.spec.kind} {entry.spec.identity} needs {_mebibytes(size)} of memory, but "
            f"{_mebibytes(max(0, room))} {budget}{held}"
        )


def _mebibytes(size: int) -> str:
    return f"{-(-size // MEBIBYTE):,} MiB"
