"""Sources of a model: a path, an open file, or memory."""

from __future__ import annotations

import io
import os
import tempfile
from dataclasses import dataclass
from typing import IO, BinaryIO, Self

__all__ = ["MAGIC", "ModelFile"]

MAGIC = 0x67676D6C  # GGML_FILE_MAGIC: the first four bytes of a model file, little-endian
BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class ModelFile:
    """A model with random access. A ``with`` block closes the files opened for it.

    Attributes
    ----------
    what : str
        Description for messages.
    data : memoryview or None
        The model if it is in memory.
    file : binary file or None
        Otherwise, a file with a descriptor.
    start : int
        Offset of the model in the file.
    """

    what: str
    data: memoryview | None = None
    file: IO[bytes] | None = None
    start: int = 0

    @property
    def size(self) -> int:
        """Size in bytes."""
        if self.data is not None:
            return len(self.data)
        assert self.file is not None
        return max(0, os.fstat(self.file.fileno()).st_size - self.start)

    @classmethod
    def from_path(cls, path: str | bytes | os.PathLike[str]) -> Self:
        """Open a file.

        Raises
        ------
        FileNotFoundError, IsADirectoryError, PermissionError
            The file cannot be read.
        TypeError, ValueError
            `path` is not a path.
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
    def from_bytes(cls, data: bytes | bytearray | memoryview) -> Self:
        """Use a model in memory, without a copy.

        Raises
        ------
        TypeError
            `data` is not a bytes-like object.
        """
        try:
            return cls("the model in memory", data=memoryview(data).cast("B"))
        except TypeError:
            raise TypeError(f"the model is {type(data).__name__}, expected bytes") from None

    @classmethod
    def from_fileobj(cls, fileobj: BinaryIO) -> Self:
        """Use an open binary file, from its position to its end. It stays open.

        Raises
        ------
        TypeError
            `fileobj` is not a binary file object.
        """
        if not callable(getattr(fileobj, "read", None)):
            raise TypeError(f"the model is {fileobj!r}, expected a binary file object")
        what = f"the file {getattr(fileobj, 'name', '') or type(fileobj).__name__}"
        try:
            start = fileobj.tell()
            return cls(what, file=open(os.dup(fileobj.fileno()), "rb", buffering=0), start=start)
        except (AttributeError, OSError, io.UnsupportedOperation):
            return cls(what, file=_copy_to_file(fileobj))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.file is not None:
            self.file.close()


def _copy_to_file(fileobj: BinaryIO) -> IO[bytes]:
    """Copy a file object without a descriptor into a temporary file."""
    file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed with the ModelFile
    try:
        while True:
            data = fileobj.read(BLOCK_BYTES)
            if not isinstance(data, (bytes, bytearray, memoryview)):
                kind = type(data).__name__
                raise TypeError(f"read() returned {kind}, expected bytes; open the file in binary mode ('rb')")
            if not data:
                return file
            file.write(data)
    except BaseException:
        file.close()
        raise
