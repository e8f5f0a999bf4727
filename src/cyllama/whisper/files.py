"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

__all__ = ["beside", "replacing"]


def beside(path: Path) -> Path:
    """Make an empty file in the folder of `path`, with the rights of what is there or of a new file.

    Raises
    ------
    IsADirectoryError
        `path` is a directory.
    OSError
        The folder is missing or cannot be written.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{str(path)!r} is a directory, expected a file to write")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {str(path.parent)!r} for {path.name!r}")
    temporary = path.parent / f".cyllama-{secrets.token_hex(8)}"
    # not tempfile, whose files only their owner may read
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    with contextlib.suppress(OSError):
        os.chmod(temporary, path.stat().st_mode & 0o777)
    return temporary


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a file to write; it takes the name `path` at the end, and goes if the block fails."""
    temporary = beside(path)
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
