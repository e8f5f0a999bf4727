"""Atomic writing of files."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from cyllama._paths import expanded
from cyllama.errors import EngineError, ModelLoadError

__all__ = ["atomic_path", "final_path", "naming", "write_file"]

AnyPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]
PREFIX = ".cyllama-"
OF_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)  # errors that often name no file
PROBE_BYTES = 1 << 14  # more than the buffers of C and C++, whose last part is lost without an error on a full disk


def final_path(path: AnyPath) -> Path:
    """Return the absolute path of a file to write; for a symbolic link, the file that it points to.

    ``~`` and environment variables are replaced, unless there is a file of that name.

    Raises
    ------
    IsADirectoryError
        `path` is a directory.
    FileNotFoundError
        The folder is missing.
    ValueError
        `path` is a device or a pipe.
    """
    name = os.fsdecode(path)
    target = Path(os.path.realpath(expanded(name)))
    if target.is_dir():
        raise IsADirectoryError(f"{name!r} is a directory, expected a file to write")
    if target.exists() and not target.is_file():
        raise ValueError(f"{name!r} is a device or a pipe, expected a file or a new name")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {str(target.parent)!r} for {target.name!r}")
    return target


@contextlib.contextmanager
def naming(target: Path) -> Iterator[None]:
    """Name `target` in the errors of writing it, which otherwise name a temporary file or none."""
    try:
        yield
    except ModelLoadError:  # an OSError about the file that is read
        raise
    except OSError as error:
        if error.errno is None:
            raise OSError(errno.EIO, str(error), str(target)) from error
        own = str(target.parent / PREFIX)
        named = isinstance(error.filename, str | bytes) and os.fsdecode(error.filename).startswith(own)
        if not named and (error.filename is not None or error.errno not in OF_WRITING):
            raise
        raise OSError(error.errno, error.strerror, str(target)) from error


def _beside(target: Path, suffix: str) -> Path:
    """Create an empty file in the folder of `target`, with the permissions of an existing target."""
    temporary = target.parent / f"{PREFIX}{secrets.token_hex(8)}{suffix}"
    # not tempfile, which makes files for their owner only
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    with contextlib.suppress(OSError):
        os.chmod(temporary, target.stat().st_mode & 0o777)
    return temporary


def _probe(path: Path) -> None:
    """Raise the OSError with which a file cannot grow, such as on a full disk."""
    with open(path, "ab") as file:
        size = file.tell()
        file.write(bytes(PROBE_BYTES))
        file.truncate(size)


@contextlib.contextmanager
def atomic_path(path: AnyPath, *, suffix: str = "") -> Iterator[str]:
    """Yield the name of a temporary file, which replaces `path` when the block ends.

    After an exception the temporary file is removed, and `path` is unchanged. `suffix` is that of the temporary file.

    Raises
    ------
    OSError
        The file cannot be written; the error names `path`.
    ValueError
        `path` is a device or a pipe.
    """
    target = final_path(path)
    with naming(target):
        temporary = _beside(target, suffix)
        try:
            try:
                yield os.fspath(temporary)
            except EngineError:  # engines do not report the reason
                _probe(temporary)
                raise
            _probe(temporary)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


def write_file(path: AnyPath, data: bytes | memoryview) -> None:
    """Write a file, which is replaced only when all is written.

    Raises
    ------
    OSError
        The file cannot be written; the error names `path`.
    ValueError
        `path` is a device or a pipe.
    """
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(data)
