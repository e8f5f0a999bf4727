"""Atomic writing of files."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

__all__ = ["atomic_path", "beside", "final_path"]

AnyPath = str | bytes | os.PathLike[str] | os.PathLike[bytes]


def final_path(path: AnyPath) -> Path:
    """Return the absolute path of a file to write; for a symbolic link, the file that it points to.

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
    target = Path(os.path.realpath(name))
    if target.is_dir():
        raise IsADirectoryError(f"{name!r} is a directory, expected a file to write")
    if target.exists() and not target.is_file():
        raise ValueError(f"{name!r} is a device or a pipe, expected a file or a new name")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {str(target.parent)!r} for {target.name!r}")
    return target


def beside(target: Path) -> Path:
    """Create an empty file in the folder of `target`, with the permissions of an existing target.

    Raises
    ------
    OSError
        The folder cannot be written.
    """
    temporary = target.parent / f".cyllama-{secrets.token_hex(8)}"
    # not tempfile, which makes files for their owner only
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    with contextlib.suppress(OSError):
        os.chmod(temporary, target.stat().st_mode & 0o777)
    return temporary


@contextlib.contextmanager
def atomic_path(path: AnyPath) -> Iterator[str]:
    """Yield the name of a temporary file, which replaces `path` when the block ends.

    After an exception the temporary file is removed, and `path` is unchanged.

    Raises
    ------
    OSError
        The file cannot be created.
    ValueError
        `path` is a device or a pipe.
    """
    target = final_path(path)
    temporary = beside(target)
    try:
        yield os.fspath(temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
