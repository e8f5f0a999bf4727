"""The bytes of an audio file: of a file that stays open, or in memory."""

from __future__ import annotations

import io
import os
import weakref
from pathlib import Path

__all__ = ["AudioFile"]


class AudioFile:
    """The bytes of an audio file, which several readers can read independently.

    Parameters
    ----------
    data : path or bytes
        The file, whose descriptor stays open until the object is dropped, or its content.
    """

    def __init__(self, data: Path | bytes) -> None:
        self._data = data
        self._descriptor = -1
        if isinstance(data, bytes):
            self.size = len(data)
            return
        self._descriptor = os.open(data, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)
        self.size = os.fstat(self._descriptor).st_size

    def part(self, start: int, size: int) -> bytes:
        """Return bytes from `start` on; fewer than `size` at the end."""
        if isinstance(self._data, bytes):
            return self._data[start : start + size]
        return os.pread(self._descriptor, size, start)

    def open(self) -> io.RawIOBase | io.BytesIO:
        """Return a file object with its own position."""
        found = self.path_or_object()
        return found if isinstance(found, io.BytesIO) else open(found, "rb", buffering=0)

    def path_or_object(self) -> str | io.BytesIO:
        """Return a path that stays valid when the file is removed or renamed, or a file object of the content."""
        if isinstance(self._data, bytes):
            return io.BytesIO(self._data)
        path = f"/proc/self/fd/{self._descriptor}"
        return path if os.path.exists(path) else os.path.abspath(self._data)
