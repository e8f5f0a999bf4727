"""The folder of a store: its database, and the files that an interrupted call has left there."""

from __future__ import annotations

import os
import re
import sqlite3
import stat
from collections.abc import Callable, Container
from pathlib import Path

from cyllama.server.http.errors import log

__all__ = ["make_folders", "open_database", "part_path", "remove_strays"]

FOLDERS = ("files", "work")
PART = re.compile(r"file-[0-9a-f]{24}(-output|-error)?\.part")
"""Names of files that are being written or deleted; only the store makes them."""
WORK = re.compile(r"batch_[0-9a-f]{24}\.jsonl")
SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, filename TEXT NOT NULL, purpose TEXT NOT NULL, bytes INTEGER NOT NULL,
    created_at INTEGER NOT NULL, expires_at INTEGER);
CREATE TABLE IF NOT EXISTS batches (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, status TEXT NOT NULL, created_at INTEGER NOT NULL, record TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS batches_by_status ON batches (status);
CREATE INDEX IF NOT EXISTS batches_by_owner ON batches (owner, created_at);
CREATE INDEX IF NOT EXISTS files_by_owner ON files (owner, created_at);
"""
COLUMNS = ("SELECT id, owner, filename, purpose, bytes, created_at, expires_at FROM files LIMIT 1",
           "SELECT id, owner, status, created_at, record FROM batches LIMIT 1")  # fmt: skip


def make_folders(folder: Path) -> None:
    """Create the folders of a store, in which only its user reads the requests and results of callers.

    Raises
    ------
    OSError
    ValueError
        One of them is a symbolic link: files elsewhere would be written and deleted.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in FOLDERS:
        path = folder / name
        if path.is_symlink():
            raise ValueError(f"{path} is a symbolic link, expected a folder that belongs to the batches only")
        path.mkdir(exist_ok=True)
        os.chmod(path, 0o700)


def open_database(path: Path) -> sqlite3.Connection:
    """Open the database of a store, and create it if it does not exist.

    Raises
    ------
    OSError
    ValueError
        The file is damaged, or something else.
    """
    database: sqlite3.Connection | None = None
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    try:
        database = sqlite3.connect(path, check_same_thread=False)
        database.execute("PRAGMA journal_mode=WAL")
        (state,) = database.execute("PRAGMA quick_check(1)").fetchone()
        if state != "ok":
            raise sqlite3.DatabaseError(str(state).splitlines()[-1])
        database.executescript(SCHEMA)
        for query in COLUMNS:
            database.execute(query).fetchall()
    except sqlite3.Error as error:
        if database is not None:
            database.close()
        advice = "restore it, or move it away to begin without files and batches"
        raise ValueError(f"{path} cannot be used as the database of the batches ({error}); {advice}") from error
    return database


def part_path(path: Path) -> Path:
    """Return where a file is while it is written or deleted."""
    return path.with_name(f"{path.name}.part")


def remove_strays(folder: Path, files: Container[str], is_open: Callable[[str], bool | None]) -> None:
    """Delete what an interrupted call has left; warn about files that the database does not name, and keep them.

    Parameters
    ----------
    folder : path
    files : container of str
        Identifiers of the files in the database.
    is_open : callable
        Returns whether a batch is unfinished; None: there is no such batch.
    """
    for name in FOLDERS:
        unknown = []
        for path in sorted((folder / name).iterdir()):
            if name == "files":
                stray, known = PART.fullmatch(path.name) is not None, path.name in files
            else:
                state = is_open(path.stem) if WORK.fullmatch(path.name) else None
                stray, known = state is False, state is True
            if stray and stat.S_ISREG(path.lstat().st_mode):
                path.unlink(missing_ok=True)
            elif not known:
                unknown.append(path.name)
        if unknown:
            text = "%s has %d files that batches.sqlite does not name, such as %.100r; they are kept"
            log.warning(text, folder / name, len(unknown), unknown[0])
