"""Where a model is read from: a file by its path, a file that is open, or memory."""

from __future__ import annotations

import io
import os
import tempfile
from dataclasses import dataclass
from typing import IO, Any, Self

__all__ = ["ModelFile"]

BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class ModelFile:
    """A model that can be read at any place; a ``with`` block closes what was opened for it.

    Attributes
    ----------
    what : str
        What it is called in messages.
    data : memoryview or None
        The model, if it is in memory.
    file : binary file or None
        With a descriptor, if it is not.
    start : int
        Where in the file it begins.
    """

    what: str
    data: memoryview | None = None
    file: IO[bytes] | None = None
    start: int = 0

    @property
    def size(self) -> int:
        """Its length in bytes."""
        if self.data is not None:
            return len(self.data)
        assert self.file is not None
        return max(0, os.fstat(self.file.fileno()).st_size - self.start)

    @classmethod
    def from_path(cls, path: str | bytes | os.PathLike[Any]) -> Self:
        """Open a file.

        Raises
        ------
        FileNotFoundError, IsADirectoryError, PermissionError
            It cannot be read.
        TypeError, ValueError
            It is no path.
        """
        try:
            text = os.fspath(path)
        except TypeError:
            raise TypeError(f"the model is {path!r}, expected a path (str, bytes or os.PathLike)") from None
        name = os.fsdecode(text)
        if "\0" in name:
            raise ValueError(f"the model is {name!r}, a path cannot contain a null character")
        if os.path.isdir(name):
            raise IsADirectoryError(f"the model is {name!r}, a directory, expected a file")
        return cls(name, file=open(name, "rb", buffering=0))

    @classmethod
    def from_bytes(cls, data: Any) -> Self:
        """Take a model in memory, without a copy.

        Raises
        ------
        TypeError
            It is no bytes-like object.
        """
        try:
            return cls("the model in memory", data=memoryview(data).cast("B"))
        except TypeError:
            raise TypeError(f"the model is {type(data).__name__}, expected bytes") from None

    @classmethod
    def from_fileobj(cls, fileobj: Any) -> Self:
        """Take an open binary file from where it stands to its end; it is left open.

        Raises
        ------
        TypeError
            It is no binary file object.
        """
        if not callable(getattr(fileobj, "read", None)):
            raise TypeError(f"the model is {fileobj!r}, expected a binary file object")
        what = f"the file {getattr(fileobj, 'name', '') or type(fileobj).__name__}"
        try:
            start = fileobj.tell()
            return cls(what, file=open(os.dup(fileobj.fileno()), "rb", buffering=0), start=start)
        except (AttributeError, OSError, io.UnsupportedOperation):
            return cls(what, file=_copy(fileobj))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.file is not None:
            self.file.close()


def _copy(fileobj: Any) -> IO[bytes]:
    """What has no descriptor, in a file that has one."""
    file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed with the ModelFile
    try:
        while True:
            data = fileobj.read(BLOCK_BYTES)
            if not isinstance(data, (bytes, bytearray, memoryview)):
                kind = type(data).__name__
                raise TypeError(f"the file object gave {kind}, expected bytes; open it in binary mode ('rb')")
            if not data:
                return file
            file.write(data)
    except BaseException:
        file.close()
        raise
