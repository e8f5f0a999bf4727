"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator

__all__ = ["atomic_path"]


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
    temporary = os.path.join(os.path.dirname(target), f".cyllama-{secrets.token_hex(8)}")
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))  # less the umask, as open() does
    try:
        yield temporary
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
