"""Caches of states, under the names of llama-cpp-python, for `Llama.set_cache`.

Without a cache, the model keeps the prompts of the last requests in its own prompt cache.
"""

from __future__ import annotations

import abc
import hashlib
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path

from cyllama._native.files import atomic_path
from cyllama.compat._state import LlamaState

__all__ = ["BaseLlamaCache", "LlamaCache", "LlamaDiskCache", "LlamaRAMCache", "longest_prefix"]

CAPACITY = 2 << 30


def longest_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """Return the number of equal tokens at the start."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


class BaseLlamaCache(abc.ABC):
    """A mapping of tokens to states; a lookup returns the state with the longest common start.

    Parameters
    ----------
    capacity_bytes : int
        The most bytes of all states.
    """

    def __init__(self, capacity_bytes: int = CAPACITY) -> None:
        self.capacity_bytes = capacity_bytes

    @property
    @abc.abstractmethod
    def cache_size(self) -> int:
        """The bytes of all states."""

    @abc.abstractmethod
    def __getitem__(self, key: Sequence[int]) -> LlamaState: ...

    @abc.abstractmethod
    def __contains__(self, key: Sequence[int]) -> bool: ...

    @abc.abstractmethod
    def __setitem__(self, key: Sequence[int], value: LlamaState) -> None: ...


class LlamaRAMCache(BaseLlamaCache):
    """A cache in memory."""

    def __init__(self, capacity_bytes: int = CAPACITY) -> None:
        super().__init__(capacity_bytes)
        self.cache_state: OrderedDict[tuple[int, ...], LlamaState] = OrderedDict()

    @property
    def cache_size(self) -> int:
        """The bytes of all states."""
        return sum(state.llama_state_size for state in self.cache_state.values())

    def _nearest(self, key: Sequence[int]) -> tuple[int, ...] | None:
        best = max(self.cache_state, key=lambda known: longest_prefix(known, key), default=None)
        return best if best is not None and longest_prefix(best, key) else None

    def __getitem__(self, key: Sequence[int]) -> LlamaState:
        found = self._nearest(key)
        if found is None:
            raise KeyError("no state has these tokens")
        self.cache_state.move_to_end(found)
        return self.cache_state[found]

    def __contains__(self, key: Sequence[int]) -> bool:
        return self._nearest(key) is not None

    def __setitem__(self, key: Sequence[int], value: LlamaState) -> None:
        self.cache_state.pop(tuple(key), None)
        self.cache_state[tuple(key)] = value
        while self.cache_state and self.cache_size > self.capacity_bytes:
            self.cache_state.popitem(last=False)


LlamaCache = LlamaRAMCache


class LlamaDiskCache(BaseLlamaCache):
    """A cache in a folder, which later processes can use. Its files are not those of llama-cpp-python.

    Parameters
    ----------
    cache_dir : str or path
    capacity_bytes : int
    """

    def __init__(
        self, cache_dir: str | os.PathLike[str] = ".cache/llama_cache", capacity_bytes: int = CAPACITY
    ) -> None:
        super().__init__(capacity_bytes)
        self._folder = Path(cache_dir)
        self._folder.mkdir(parents=True, exist_ok=True)

    def _files(self) -> list[Path]:
        """Return the files, those that were used the longest ago first."""
        return sorted(self._folder.glob("*.state"), key=lambda path: path.stat().st_mtime_ns)

    @property
    def cache_size(self) -> int:
        """The bytes of all files."""
        return sum(path.stat().st_size for path in self._files())

    def _states(self) -> Iterator[tuple[Path, LlamaState]]:
        for path in self._files():
            yield path, LlamaState.from_bytes(path.read_bytes())

    def _nearest(self, key: Sequence[int]) -> tuple[Path, LlamaState] | None:
        found, most = None, 0
        for path, state in self._states():
            count = longest_prefix(state.input_ids.tolist(), key)
            if count > most:
                found, most = (path, state), count
        return found

    def __getitem__(self, key: Sequence[int]) -> LlamaState:
        found = self._nearest(key)
        if found is None:
            raise KeyError("no state has these tokens")
        found[0].touch()
        return found[1]

    def __contains__(self, key: Sequence[int]) -> bool:
        return self._nearest(key) is not None

    def __setitem__(self, key: Sequence[int], value: LlamaState) -> None:
        name = hashlib.sha256(",".join(map(str, key)).encode()).hexdigest()
        with atomic_path(self._folder / f"{name}.state") as temporary:
            Path(temporary).write_bytes(value.to_bytes())
        for path in self._files():
            if self.cache_size <= self.capacity_bytes:
                break
            path.unlink(missing_ok=True)
