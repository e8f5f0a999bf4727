"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

__all__ = ["atomic_path", "beside"]


def beside(path: str | os.PathLike[str]) -> Path:
    """Make an empty file in the folder of `path`, with the rights of what is there or of a new file.

    Raises
    ------
    IsADirectoryError
        `path` is a directory.
    OSError
        The folder is missing or cannot be written.
    """
    target = Path(path).absolute()
    if target.is_dir():
        raise IsADirectoryError(f"{os.fspath(path)!r} is a directory, expected a file to write")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {str(target.parent)!r} for {target.name!r}")
    temporary = target.parent / f".cyllama-{secrets.token_hex(8)}"
    # not tempfile, whose files only their owner may read
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    with contextlib.suppress(OSError):
        os.chmod(temporary, target.stat().st_mode & 0o777)
    return temporary


@contextlib.contextmanager
def atomic_path(path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> Iterator[str]:
    """Give the name of an empty file beside `path`, which takes its name when the block ends well.

    After an exception nothing is left, and what was at `path` before is still there.

    Raises
    ------
    OSError
        The file cannot be made there.
    """
    target = os.path.abspath(os.fsdecode(path))
    temporary = beside(target)
    try:
        yield os.fspath(temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
