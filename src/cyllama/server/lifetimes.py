"""How long models stay loaded: pinned models, and models that are unloaded when they are idle."""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections import Counter
from collections.abc import Iterator
from typing import Any

from cyllama._cancel import Cancel
from cyllama.pipelines import ModelPool
from cyllama.server.config import ModelEntry
from cyllama.server.http.errors import log

__all__ = ["ModelLifetimes"]


class ModelLifetimes:
    """The models of a pool, with the times when they are unloaded.

    Parameters
    ----------
    pool : ModelPool

    Notes
    -----
    Thread safety: all methods may be called from several threads. A thread, started by the first model with an idle
    time, unloads models.
    """

    def __init__(self, pool: ModelPool) -> None:
        self._pool = pool
        self._changed = threading.Condition()
        self._users: Counter[str] = Counter()
        self._seconds: dict[str, float | None] = {}  # idle time; None: unlimited
        self._ends: dict[str, tuple[float, ModelEntry]] = {}  # when the model is unloaded, monotonic
        self._pins: dict[str, contextlib.ExitStack] = {}  # uses that keep models in memory
        self._unpinned: set[str] = set()  # loaded models whose pin a client has ended
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()  # loaded models that were logged
        self._thread: threading.Thread | None = None
        self._closed = False

    @contextlib.contextmanager
    def use(self, entry: ModelEntry, cancel: Cancel) -> Iterator[Any]:
        """Lend a loaded model for the length of a block; its idle time begins at the end of the last block."""
        with self._changed:
            self._users[entry.name] += 1
            self._ends.pop(entry.name, None)
        try:
            with self._pool.use(entry.kind, entry.model, cancel=cancel, **entry.settings) as model:
                self._log_load(entry, model)
                if entry.pin and entry.name not in self._unpinned:
                    self.pin(entry)
                yield model
        finally:
            with self._changed:
                self._users[entry.name] -= 1
                if not self._users[entry.name]:
                    self._begin_idle_time(entry)

    def _log_load(self, entry: ModelEntry, model: object) -> None:
        """Log the first use of a model since it was loaded."""
        with self._changed:
            if model in self._known:
                return
            self._known.add(model)
        log.info("loaded %s", entry.name)

    def pin(self, entry: ModelEntry) -> None:
        """Keep a loaded model in memory until `unload`; load it if it is not loaded."""
        with self._changed:
            if entry.name in self._pins or self._closed:
                return
            self._unpinned.discard(entry.name)
            stack = self._pins[entry.name] = contextlib.ExitStack()
        try:
            stack.enter_context(self._pool.use(entry.kind, entry.model, **entry.settings))
        except BaseException:
            with self._changed:
                self._pins.pop(entry.name, None)
            raise

    def is_pinned(self, entry: ModelEntry) -> bool:
        """Return whether the model is pinned."""
        return entry.name in self._pins

    def set_idle_seconds(self, entry: ModelEntry, seconds: float | None) -> None:
        """Change the seconds without requests after which the model is unloaded; None: never."""
        with self._changed:
            self._seconds[entry.name] = seconds
            if not self._users[entry.name]:
                self._begin_idle_time(entry)

    def idle_seconds(self, entry: ModelEntry) -> float | None:
        """Return the seconds without requests after which the model is unloaded; None: never."""
        return self._seconds.get(entry.name, entry.idle_seconds)

    def expires_in(self, entry: ModelEntry) -> float | None:
        """Return the seconds until the model is unloaded if no request uses it; None: never."""
        with self._changed:
            if entry.name in self._pins:
                return None
            if entry.name in self._ends:
                return max(0.0, self._ends[entry.name][0] - time.monotonic())
        return self.idle_seconds(entry)

    def unload(self, entry: ModelEntry) -> bool:
        """Unload a model and end its pin; return False if requests use it."""
        with self._changed:
            if self._users[entry.name]:
                return False
            self._ends.pop(entry.name, None)
            self._seconds.pop(entry.name, None)
            self._unpinned.discard(entry.name)
        self.end_pin(entry)
        if self._pool.unload(entry.kind, entry.model, entry.settings):
            log.info("unloaded %s", entry.name)
        return not self._users[entry.name]

    def unpin(self, entry: ModelEntry) -> None:
        """End the pin of a model until it is unloaded."""
        with self._changed:
            self._unpinned.add(entry.name)
        self.end_pin(entry)

    def end_pin(self, entry: ModelEntry) -> None:
        """End the pin of a model, if it has one; the next request can pin it again."""
        with self._changed:
            pin = self._pins.pop(entry.name, None)
        if pin is not None:
            pin.close()

    def close(self) -> None:
        """End all pins, and stop unloading idle models."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            pins = list(self._pins.values())
            self._pins.clear()
        for pin in pins:
            pin.close()
        if self._thread is not None:
            self._thread.join()

    def _begin_idle_time(self, entry: ModelEntry) -> None:
        """Set the time when the model is unloaded; the caller holds the lock."""
        seconds = self.idle_seconds(entry)
        self._ends.pop(entry.name, None)
        if seconds is None or self._closed:
            return
        self._ends[entry.name] = (time.monotonic() + seconds, entry)
        if self._thread is None:
            self._thread = threading.Thread(target=self._unload_idle, name="cyllama-idle-models", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _unload_idle(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                now = time.monotonic()
                due = [entry for end, entry in self._ends.values() if end <= now]
                if not due:
                    ends = [end - now for end, _ in self._ends.values()]
                    self._changed.wait(min(ends) if ends else None)
                    continue
                for entry in due:
                    del self._ends[entry.name]
                    self._seconds.pop(entry.name, None)  # the next load begins with the configuration's time
                due = [entry for entry in due if entry.name not in self._pins]
            for entry in due:
                if self._pool.unload(entry.kind, entry.model, entry.settings):
                    log.info("unloaded %s, which was idle", entry.name)
