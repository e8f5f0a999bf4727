"""The files and batches of ``/v1/files`` and ``/v1/batches``: SQLite and a folder, which survive a restart."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from cyllama.server.batches.folder import make_folders, open_database, part_path, remove_strays
from cyllama.server.batches.output import OutputFile, lock_file
from cyllama.server.batches.requests import LineFault
from cyllama.server.http.errors import http_error
from cyllama.server.limits import Limits

__all__ = ["COMPLETION_SECONDS", "OPEN_STATUSES", "BatchRecord", "BatchStore", "FileRecord"]

COMPLETION_SECONDS = 24 * 3600
"""The only ``completion_window``."""
OPEN_STATUSES = ("validating", "in_progress", "finalizing", "cancelling")
KEPT_BATCHES = 1000  # finished ones of a client; older ones are removed


@dataclass(frozen=True)
class FileRecord:
    """A stored file.

    Attributes
    ----------
    id, owner, filename, purpose : str
    bytes, created_at : int
    expires_at : int or None
    """

    id: str
    owner: str
    filename: str
    purpose: str
    bytes: int
    created_at: int
    expires_at: int | None

    def to_dict(self) -> dict[str, Any]:
        """Return OpenAI's form."""
        found = {
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": self.created_at,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
        }
        return found | ({} if self.expires_at is None else {"expires_at": self.expires_at})


@dataclass(frozen=True)
class BatchRecord:
    """A batch.

    Attributes
    ----------
    owner : str
    fields : dict
        OpenAI's form.
    """

    owner: str
    fields: dict[str, Any]

    @property
    def id(self) -> str:
        """The identifier."""
        return str(self.fields["id"])

    @property
    def status(self) -> str:
        """OpenAI's status."""
        return str(self.fields["status"])


class BatchStore:
    """The files and batches of a folder, which no other process may use at the same time.

    Parameters
    ----------
    folder : path
        Created if it does not exist.
    limits : Limits

    Raises
    ------
    OSError
        The folder cannot be written, or another process uses it.
    ValueError
        The database is damaged, or a folder is a symbolic link.

    Notes
    -----
    Thread safety: all methods may be called from several threads. `owner` is the caller: an item of another one does
    not exist for it.
    """

    def __init__(self, folder: str | os.PathLike[str], limits: Limits) -> None:
        self._folder, self._limits = Path(folder), limits
        make_folders(self._folder)
        self._guard = open(self._folder / "lock", "ab")  # noqa: SIM115 - open as long as the store
        try:
            lock_file(self._guard.fileno(), str(self._folder))
            self._lock = threading.RLock()
            self._database = open_database(self._folder / "batches.sqlite")
        except BaseException:
            self._guard.close()
            raise
        self._remove_strays()

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._database.close()
            self._guard.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._database:
            yield self._database

    # ------------------------------------------------------------------------------------------ files

    def path(self, file_id: str) -> Path:
        """Return the path of a file's content."""
        return self._folder / "files" / file_id

    def work_path(self, batch_id: str) -> Path:
        """Return the path of the results of a batch that runs."""
        return self._folder / "work" / f"{batch_id}.jsonl"

    def add_file(
        self, owner: str, filename: str, purpose: str, content: IO[bytes], expires_after: int | None = None
    ) -> FileRecord:
        """Store a file.

        Raises
        ------
        HTTPException
            413 or 429: the caller has too many files, or all files are too large together.
        OSError
        """
        self.remove_expired()
        file_id = f"file-{secrets.token_hex(12)}"
        return self._write_file(file_id, owner, filename, purpose, content, expires_after, check=True)

    def add_results(self, batch: BatchRecord, name: str, content: IO[bytes], expires_after: int | None) -> FileRecord:
        """Store results of a batch; a second call, as after a restart, replaces the file of the first.

        Raises
        ------
        OSError
        """
        file_id = _result_id(batch, name)
        title = f"{batch.id}_{name}.jsonl"
        return self._write_file(file_id, batch.owner, title, "batch_output", content, expires_after, check=False)

    def keep_results(self, batch: BatchRecord) -> str | None:
        """Make the results that a batch has so far its output, which needs no space; return the file's identifier.

        Raises
        ------
        OSError
        """
        work = self.work_path(batch.id)
        with contextlib.suppress(ValueError, OSError):
            OutputFile(work).close()  # without a line that was written in part
        if not work.exists() or not work.stat().st_size:
            return None
        now, after, file_id = int(time.time()), batch.fields["output_expires_after"], _result_id(batch, "output")
        expires_at = None if after is None else now + int(after["seconds"])
        title, size = f"{batch.id}_output.jsonl", work.stat().st_size
        with self._transaction() as database:
            values = (file_id, batch.owner, title, "batch_output", size, now, expires_at)
            database.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?)", values)
            os.replace(work, self.path(file_id))
        return file_id

    def _write_file(
        self,
        file_id: str,
        owner: str,
        filename: str,
        purpose: str,
        content: IO[bytes],
        expires_after: int | None,
        *,
        check: bool,
    ) -> FileRecord:
        now, path = int(time.time()), self.path(file_id)
        part = part_path(path)
        try:
            if check:
                self._check_room(owner, 0)
            with open(part, "wb") as file:
                shutil.copyfileobj(content, file)
                size = file.tell()
                file.flush()
                os.fsync(file.fileno())
            expires_at = None if expires_after is None else now + expires_after
            with self._transaction() as database:
                if check:
                    self._check_room(owner, size)
                values = (file_id, owner, filename, purpose, size, now, expires_at)
                database.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?)", values)
                os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        return FileRecord(*values)

    def _check_room(self, owner: str, size: int) -> None:
        """Raise if the caller has too many files, or if all files with `size` more bytes are too large."""
        limits = self._limits
        with self._lock:
            (count,) = self._database.execute("SELECT COUNT(*) FROM files WHERE owner = ?", (owner,)).fetchone()
            (total,) = self._database.execute("SELECT COALESCE(SUM(bytes), 0) FROM files").fetchone()
        if count >= limits.files:
            message = f"there are {count:,} files, at most {limits.files:,} are allowed (limits.files); delete files"
            raise http_error(429, message, param="file")
        if total + size > limits.file_bytes:
            message = (
                f"all files have {total + size:,} bytes, at most {limits.file_bytes:,} are allowed (limits.file_bytes)"
            )
            raise http_error(413, message, param="file")

    def find_file(self, owner: str, file_id: str, param: str | None = None) -> FileRecord:
        """Return a file of the caller.

        Raises
        ------
        HTTPException
            404.
        """
        with self._lock:
            query = "SELECT * FROM files WHERE id = ? AND owner = ?"
            row = self._database.execute(query, (file_id, owner)).fetchone()
        found = None if row is None else FileRecord(*row)
        if found is None or _is_expired(found):
            raise http_error(404, f"there is no file {file_id!r:.100}", param=param)
        return found

    def list_files(
        self, owner: str, *, purpose: str | None, after: str | None, limit: int, order: Literal["asc", "desc"]
    ) -> tuple[list[FileRecord], bool]:
        """Return files of the caller, and whether there are more."""
        with self._lock:
            where = "(?2 IS NULL OR purpose = ?2) AND (expires_at IS NULL OR expires_at > ?3)"
            values = (owner, purpose, int(time.time()))
            rows, more = self._page("files", "*", where, values, after, limit, order)
        return [FileRecord(*row) for row in rows], more

    def _page(
        self,
        table: Literal["files", "batches"],
        columns: str,
        where: str,
        values: tuple[object, ...],
        after: str | None,
        limit: int,
        order: Literal["asc", "desc"],
    ) -> tuple[list[Any], bool]:
        """Return rows of a caller, the first of the values, after one of them, and whether there are more.

        Raises
        ------
        HTTPException
            400: there is no such item.
        """
        condition = f"owner = ?1 AND {where}"
        if after is not None:
            query = f"SELECT created_at, rowid FROM {table} WHERE {condition} AND id = ?{len(values) + 1}"
            place = self._database.execute(query, (*values, after)).fetchone()
            if place is None:
                message = f"after is {after!r:.100}, expected the id of an item of the list"
                raise http_error(400, message, param="after")
            sign, count = "<" if order == "desc" else ">", len(values)
            condition += f" AND (created_at, rowid) {sign} (?{count + 1}, ?{count + 2})"
            values = (*values, *place)
        query = f"SELECT {columns} FROM {table} WHERE {condition} ORDER BY created_at {order}, rowid {order} LIMIT "
        rows = self._database.execute(f"{query}{limit + 1}", values).fetchall()
        return rows[:limit], len(rows) > limit

    def delete_file(self, owner: str, file_id: str) -> None:
        """Delete a file of the caller.

        Raises
        ------
        HTTPException
            404; 409 while a batch uses the file.
        """
        self.find_file(owner, file_id)
        for batch in self.open_batches():
            if batch.fields["input_file_id"] == file_id:
                raise http_error(409, f"the batch {batch.id} uses the file; cancel it first")
        self._delete(file_id)

    def remove_expired(self) -> None:
        """Delete the files whose time is over, except those that batches use."""
        used = {batch.fields["input_file_id"] for batch in self.open_batches()}
        with self._lock:
            query = "SELECT id FROM files WHERE expires_at <= ?"
            rows = self._database.execute(query, (int(time.time()),)).fetchall()
        for (file_id,) in rows:
            if file_id not in used:
                self._delete(file_id)

    def _delete(self, file_id: str) -> None:
        path = self.path(file_id)
        with self._transaction() as database:
            database.execute("DELETE FROM files WHERE id = ?", (file_id,))
            with contextlib.suppress(FileNotFoundError):
                os.replace(path, part_path(path))
        part_path(path).unlink(missing_ok=True)

    def _remove_strays(self) -> None:
        """Delete what an interrupted call has left in the folder."""
        known = {row[0] for row in self._database.execute("SELECT id FROM files")}
        statuses = dict(self._database.execute("SELECT id, status FROM batches"))
        remove_strays(self._folder, known, lambda name: statuses[name] in OPEN_STATUSES if name in statuses else None)

    # ---------------------------------------------------------------------------------------- batches

    def create_batch(
        self,
        owner: str,
        input_file_id: str,
        endpoint: str,
        metadata: Mapping[str, str] | None,
        expires_after: int | None,
    ) -> BatchRecord:
        """Create a batch of a file of the caller.

        Raises
        ------
        HTTPException
            404 if there is no such file, 429 if the caller has too many unfinished batches.
        """
        self.find_file(owner, input_file_id, "input_file_id")
        mine = sum(batch.owner == owner for batch in self.open_batches())
        if mine >= self._limits.batches:
            most = self._limits.batches
            raise http_error(429, f"there are {mine} unfinished batches, at most {most} are allowed (limits.batches)")
        now = int(time.time())
        expiry = None if expires_after is None else {"anchor": "created_at", "seconds": expires_after}
        times = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
        fields: dict[str, Any] = {
            "id": f"batch_{secrets.token_hex(12)}",
            "object": "batch",
            "endpoint": endpoint,
            "errors": None,
            "input_file_id": input_file_id,
            "completion_window": "24h",
            "status": "validating",
            "output_file_id": None,
            "error_file_id": None,
            "created_at": now,
            "expires_at": now + COMPLETION_SECONDS,
            **{f"{name}_at": None for name in times},
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
            "metadata": None if metadata is None else dict(metadata),
            "output_expires_after": expiry,
        }
        with self._transaction() as database:
            values = (fields["id"], owner, fields["status"], now, json.dumps(fields))
            database.execute("INSERT INTO batches VALUES (?, ?, ?, ?, ?)", values)
            marks = ", ".join("?" * len(OPEN_STATUSES))
            finished = f"SELECT id FROM batches WHERE owner = ? AND status NOT IN ({marks})"
            old = f"{finished} ORDER BY rowid DESC LIMIT -1 OFFSET ?"
            database.execute(f"DELETE FROM batches WHERE id IN ({old})", (owner, *OPEN_STATUSES, KEPT_BATCHES))
        return BatchRecord(owner, fields)

    def find_batch(self, owner: str, batch_id: str) -> BatchRecord:
        """Return a batch of the caller.

        Raises
        ------
        HTTPException
            404.
        """
        found = self._batch(batch_id)
        if found is None or found.owner != owner:
            raise http_error(404, f"there is no batch {batch_id!r:.100}")
        return found

    def _batch(self, batch_id: str) -> BatchRecord | None:
        with self._lock:
            row = self._database.execute("SELECT owner, record FROM batches WHERE id = ?", (batch_id,)).fetchone()
        return None if row is None else BatchRecord(row[0], json.loads(row[1]))

    def list_batches(self, owner: str, *, after: str | None, limit: int) -> tuple[list[BatchRecord], bool]:
        """Return batches of the caller, the newest first, and whether there are more."""
        with self._lock:
            rows, more = self._page("batches", "owner, record", "TRUE", (owner,), after, limit, "desc")
        return [BatchRecord(row[0], json.loads(row[1])) for row in rows], more

    def open_batches(self) -> list[BatchRecord]:
        """Return the batches that are not finished, the oldest first."""
        marks = ", ".join("?" * len(OPEN_STATUSES))
        with self._lock:
            query = f"SELECT owner, record FROM batches WHERE status IN ({marks}) ORDER BY created_at, rowid"
            rows = self._database.execute(query, OPEN_STATUSES).fetchall()
        return [BatchRecord(row[0], json.loads(row[1])) for row in rows]

    def update(self, batch_id: str, status: str | None = None, **fields: object) -> BatchRecord:
        """Change fields of a batch; a new status sets its time."""
        with self._transaction() as database:
            found = self._batch(batch_id)
            assert found is not None
            changed = {**found.fields, **fields}
            if status is not None and status != found.status:
                changed |= {"status": status, f"{status}_at": int(time.time())}
            values = (changed["status"], json.dumps(changed), batch_id)
            database.execute("UPDATE batches SET status = ?, record = ? WHERE id = ?", values)
        return BatchRecord(found.owner, changed)

    def cancel(self, owner: str, batch_id: str) -> BatchRecord:
        """Cancel a batch of the caller, or begin to cancel it if it runs.

        Raises
        ------
        HTTPException
            404; 409 if the batch is finished.
        """
        with self._lock:
            found = self.find_batch(owner, batch_id)
            if found.status not in OPEN_STATUSES:
                raise http_error(409, f"the batch is {found.status} already")
            changes = {"validating": "cancelled", "in_progress": "cancelling"}  # the former has no results
            return self.update(batch_id, changes[found.status]) if found.status in changes else found

    def begin(self, batch_id: str, total: int) -> BatchRecord:
        """Set the number of requests of a batch, and begin it unless it has been cancelled."""
        with self._lock:
            found = self.update(batch_id, request_counts={"total": total, "completed": 0, "failed": 0})
            return self.update(batch_id, "in_progress") if found.status == "validating" else found

    def finalize(self, batch_id: str) -> BatchRecord:
        """Begin to make the files of results of a batch that has run; another one keeps its status."""
        with self._lock:
            found = self.update(batch_id)
            return self.update(batch_id, "finalizing") if found.status == "in_progress" else found

    def fail(self, batch_id: str, faults: list[LineFault], **fields: object) -> None:
        """End a batch whose file is invalid, or that cannot be run, unless it has ended."""
        names = ("code", "line", "message", "param")
        data = [dict(zip(names, (item.code, item.line, item.message, item.param), strict=True)) for item in faults]
        with self._lock:
            if self.update(batch_id).status in OPEN_STATUSES:
                self.update(batch_id, "failed", errors={"object": "list", "data": data}, **fields)


def _result_id(batch: BatchRecord, name: str) -> str:
    return f"file-{batch.id.removeprefix('batch_')}-{name}"


def _is_expired(file: FileRecord) -> bool:
    return file.expires_at is not None and file.expires_at <= time.time()
