"""The file with the results of a batch: append-only, continued after the end of the process at any moment."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from cyllama.server.batches.application import encode_body
from cyllama.server.batches.requests import is_failure

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["OutputFile", "lock_file"]


def lock_file(descriptor: int, name: str) -> None:
    """Lock an open file for this process.

    Raises
    ------
    BlockingIOError
        Another process has locked it.
    """
    if fcntl is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise BlockingIOError(errno.EAGAIN, "another process writes to it", name) from None


class OutputFile:
    """A file of results, which is locked until it is closed.

    Opening it removes a last line that was written in part, and reads which requests are done.

    Parameters
    ----------
    path : path

    Attributes
    ----------
    done : dict
        ``custom_id`` of each line, in the order of the file, and whether it is about an error.

    Raises
    ------
    OSError
        The file cannot be written, or another process writes it.
    ValueError
        A line is not a result, or a ``custom_id`` stands there twice.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self.done: dict[str, bool] = {}
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
        self._descriptor = os.open(self._path, flags, 0o666)
        try:
            lock_file(self._descriptor, str(self._path))
            self._size = self._read()
            os.ftruncate(self._descriptor, self._size)
        except BaseException:
            os.close(self._descriptor)
            raise

    @property
    def failed(self) -> int:
        """The number of results that are about errors."""
        return sum(self.done.values())

    def _read(self) -> int:
        """Read the results, and return the length of all complete lines."""
        size = 0
        with open(self._path, "rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                size += len(line)
                self._add(line, number)
        return size

    def _add(self, line: bytes, number: int) -> None:
        try:
            found = json.loads(line)
            custom_id, failed = found["custom_id"], is_failure(found)
        except (ValueError, LookupError, TypeError, AttributeError):
            raise ValueError(
                f"{self._path}: line {number} is no result of a batch; expected a new file, or one to continue"
            ) from None
        if custom_id in self.done:
            raise ValueError(f"{self._path}: line {number} has the custom_id {custom_id!r:.200} again")
        self.done[custom_id] = failed

    def write(self, result: Mapping[str, Any]) -> None:
        """Append the line of a result.

        Raises
        ------
        OSError
            The line could not be written; the file ends with the line before.
        """
        data = encode_body(result) + b"\n"
        written = 0
        try:
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            raise OSError(error.errno, error.strerror, str(self._path)) from error
        self._size += len(data)
        self.done[result["custom_id"]] = is_failure(result)

    def close(self) -> None:
        """Write the file to the disk, and close it."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):  # a device
                os.fsync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
