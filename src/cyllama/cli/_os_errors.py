"""Errors of the operating system as one sentence with the next step."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from cyllama._paths import similar_file

__all__ = ["explain"]

SHOWN = 3  # names of files
# What follows the name of the file.
SENTENCES = {
    errno.EACCES: "cannot be opened: permission denied; change its permissions, or give another path",
    errno.EPERM: "cannot be changed: the system does not permit it; give another path",
    errno.EROFS: "cannot be written: the file system is read-only; give another path",
    errno.ENOSPC: "cannot be written: the disk is full; free some space, or give another path",
    errno.EDQUOT: "cannot be written: the quota of the disk is used up; free some space, or give another path",
    errno.EISDIR: "is a folder, expected a file",
    errno.ENOTDIR: "cannot exist: a part of the path is a file, expected a folder",
    errno.ENAMETOOLONG: "is too long for the name of a file",
}


def explain(error: OSError) -> str:
    """Return the message of an error; those of a file say what is wrong with it, and what to do."""
    if error.errno is None or not isinstance(error.filename, str | bytes):
        return str(error)
    name = os.fsdecode(error.filename)
    if error.errno == errno.ENOENT:
        return _missing(name)
    if error.errno in SENTENCES:
        return f"{name} {SENTENCES[error.errno]}"
    return f"{name}: {error.strerror}"


def _missing(name: str) -> str:
    """Return the message for a file that does not exist, with the nearest name or the files of its folder."""
    path = Path(name)
    folder = path.parent
    if not folder.is_dir():
        return f"no such file: {name}; there is no folder '{folder}'"
    near = similar_file(path)
    if near is not None:
        return f"no such file: {name}; did you mean {near}?"
    try:
        files = sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
    except OSError:
        files = []
    alike = [file for file in files if path.suffix and Path(file).suffix.casefold() == path.suffix.casefold()]
    if alike:
        more = f" and {len(alike) - SHOWN} more" if len(alike) > SHOWN else ""
        return f"no such file: {name}; expected one such as {', '.join(alike[:SHOWN])}{more}"
    return f"no such file: {name}; give the path of an existing file (the folder is {folder.resolve()})"
