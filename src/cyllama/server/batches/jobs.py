"""The batches of the server: run one after the other, with a lower priority than the requests of other clients."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any

from starlette.types import ASGIApp

from cyllama.server.batches.application import encode_body, request_application
from cyllama.server.batches.output import OutputFile
from cyllama.server.batches.requests import (
    BatchInput,
    BatchRequest,
    LineFault,
    batch_error,
    batch_urls,
    error_line,
    is_failure,
    read_requests,
    result_line,
)
from cyllama.server.batches.run import DEFAULT_SLOTS, default_parallel, run_requests
from cyllama.server.batches.store import BatchRecord, BatchStore
from cyllama.server.config import EngineKind
from cyllama.server.http.errors import log
from cyllama.server.state import ServerState

__all__ = ["BatchJobs"]

MIN_WINDOW = 8  # requests of a batch that run or wait for a slot
POLL_SECONDS = 0.05
SAVE_SECONDS = 1.0  # between two updates of the counts
MAX_RETRY_SECONDS = 5.0
PAUSE_SECONDS = 10.0  # after an error of the store


class _Places:
    """The slots that other clients leave free: one slot of a language model stays free for them.

    The engine has no priorities: a request of a batch that waited in its queue would delay those that come later.
    """

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self._urls = batch_urls()
        self._running = dict.fromkeys(state.queues, 0)
        self._turn, self._left = asyncio.Lock(), asyncio.Event()

    @contextlib.asynccontextmanager
    async def place(self, request: BatchRequest) -> AsyncIterator[None]:
        """Wait for a slot, and hold it for the length of the block."""
        kind = self._urls[request.url]
        slots = self._slots(request)
        async with self._turn:
            while not self._is_free(kind, slots):
                self._left.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._left.wait(), POLL_SECONDS)
            self._running[kind] += 1
        try:
            yield
        finally:
            self._running[kind] -= 1
            self._left.set()

    def _is_free(self, kind: EngineKind, slots: int) -> bool:
        others = max(0, self._state.queues[kind].size - self._running[kind])
        room = slots - 1 - others if slots > 1 else int(others == 0)
        return self._running[kind] < room and not self._state.tasks.stopping

    def _slots(self, request: BatchRequest) -> int:
        if self._urls[request.url] != "llm":
            return 1
        name = request.body.get("model")
        entry = self._state.find_entry(name) if isinstance(name, str) else None
        entries = [entry] if entry is not None else [item for item in self._state.entries if item.kind == "llm"]
        return min((item.settings.get("n_parallel") or DEFAULT_SLOTS for item in entries), default=1)


class BatchJobs:
    """The jobs of a store.

    Parameters
    ----------
    state : ServerState
    store : BatchStore
    app : ASGI application
        The routes of the server, without authentication.
    """

    def __init__(self, state: ServerState, store: BatchStore, app: ASGIApp) -> None:
        self._state, self._store, self._app = state, store, app
        self._places: _Places | None = None
        self._created = asyncio.Event()
        self._current: tuple[str, asyncio.Task[None]] | None = None

    def wake(self) -> None:
        """Look for new batches; called in the event loop."""
        self._created.set()

    def cancel(self, batch_id: str) -> None:
        """Cancel the requests of a batch whose status has been changed; called in the event loop."""
        if self._current is not None and self._current[0] == batch_id:
            self._current[1].cancel()
        self.wake()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the batches for the length of the block; then keep their results, with which the next start continues."""
        task = asyncio.create_task(self._run_all())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            await asyncio.to_thread(self._store.close)

    async def _run_all(self) -> None:
        while True:
            self._created.clear()
            try:
                batches = await asyncio.to_thread(self._store.open_batches)
                if batches:
                    await self._run(batches[0])
            except Exception:  # such as a full disk
                log.exception("the batches cannot be run; trying again")
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            if not batches:
                await self._created.wait()

    async def _run(self, batch: BatchRecord) -> None:
        work = asyncio.create_task(self._work(batch))
        self._current = (batch.id, work)
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError:  # the server stops
            work.cancel()
            await asyncio.wait([work])
            raise
        finally:
            self._current = None
        error = None if work.cancelled() else work.exception()
        if work.cancelled():
            await asyncio.to_thread(self._finish, batch.id)
        elif error is not None:
            log.error("the batch %s failed", batch.id, exc_info=error)
            await asyncio.to_thread(self._fail, batch, error)

    async def _work(self, batch: BatchRecord) -> None:
        if batch.status == "validating":
            checked = await asyncio.to_thread(self._check, batch)
            if checked is None:
                return
            batch = checked
        if batch.status == "in_progress":
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, batch.fields["expires_at"] - time.time())):
                    await self._requests(batch)
        await asyncio.to_thread(self._finish, batch.id)

    def _check(self, batch: BatchRecord) -> BatchRecord | None:
        """Check the file of a batch, and begin the batch; None if it is invalid."""
        limits = self._state.config.limits
        path = self._store.path(batch.fields["input_file_id"])
        found = BatchInput.check(path, limits, endpoint=batch.fields["endpoint"], max_requests=limits.batch_requests)
        if found.faults:
            self._store.fail(batch.id, found.faults)
            return None
        return self._store.begin(batch.id, len(found.ids))

    async def _requests(self, batch: BatchRecord) -> None:
        """Run the requests that have no result."""
        self._places = self._places or _Places(self._state)
        window = max(MIN_WINDOW, default_parallel(self._state.config))
        output = await _open(self._store.work_path(batch.id))
        saving = asyncio.create_task(self._save_counts(batch, output))
        try:
            await run_requests(
                self._remaining(batch, output),
                partial(self._send, batch.owner),
                output.write,
                window=window,
            )
        finally:
            saving.cancel()
            output.close()
            with contextlib.suppress(sqlite3.Error):  # such as a full disk
                self._store.update(batch.id, request_counts=_counts(output, batch))

    async def _save_counts(self, batch: BatchRecord, output: OutputFile) -> None:
        while True:
            counts = _counts(output, batch)
            await asyncio.to_thread(self._store.update, batch.id, request_counts=counts)
            await asyncio.sleep(SAVE_SECONDS)

    def _remaining(self, batch: BatchRecord, output: OutputFile) -> Iterator[BatchRequest]:
        done = set(output.done)
        path = self._store.path(batch.fields["input_file_id"])
        for item in read_requests(path, self._state.config.limits, endpoint=batch.fields["endpoint"]):
            if isinstance(item, BatchRequest) and item.custom_id not in done:
                yield item

    async def _send(self, owner: str, request: BatchRequest) -> Mapping[str, Any]:
        rejected = batch_error(request)
        if rejected is not None:
            return result_line(request, rejected)
        assert self._places is not None
        body = await asyncio.to_thread(encode_body, request.body)
        while True:
            async with self._places.place(request):
                reply = await request_application(self._app, request.url, body, owner)
            if self._state.tasks.stopping:  # perhaps cancelled: the next start runs it again
                await asyncio.Event().wait()
            if reply.retry_after is None:
                return await asyncio.to_thread(result_line, request, reply)
            await asyncio.sleep(min(reply.retry_after, MAX_RETRY_SECONDS))

    def _finish(self, batch_id: str) -> None:
        """Make the files of results, and set the final status."""
        batch = self._store.finalize(batch_id)
        if batch.status not in ("finalizing", "cancelling"):  # cancelled before it began
            return
        cancelled = batch.status == "cancelling"
        work = self._store.work_path(batch_id)
        expired = False
        with tempfile.TemporaryFile(dir=work.parent) as good, tempfile.TemporaryFile(dir=work.parent) as bad:
            for line in _lines(work):
                (bad if is_failure(json.loads(line)) else good).write(line)
            if not cancelled:
                for line in self._expired_lines(batch, work):
                    bad.write(line)
                    expired = True
            files = {
                "output_file_id": self._add(batch, "output", good),
                "error_file_id": self._add(batch, "error", bad),
            }
        status = "cancelled" if cancelled else "expired" if expired else "completed"
        self._store.update(batch_id, status, **files)
        work.unlink(missing_ok=True)
        log.info("%s: %s", batch_id, status)

    def _fail(self, batch: BatchRecord, error: BaseException) -> None:
        """End a batch that cannot be run; the results that exist are its output."""
        kept = self._store.keep_results(batch)
        number = error.errno if isinstance(error, OSError) else None
        reason = "see the server's log" if number is None else os.strerror(number)
        message = f"the batch could not be run to its end ({reason})"
        if kept is not None:
            message += "; the output file has all results until then"
        fault = LineFault(None, "server_error", message)
        self._store.fail(batch.id, [fault], output_file_id=kept)
        log.info("%s: failed", batch.id)

    def _add(self, batch: BatchRecord, name: str, content: IO[bytes]) -> str | None:
        """Store a file of results, and return its identifier; None if it is empty."""
        if not content.tell():
            return None
        content.seek(0)
        after = batch.fields["output_expires_after"]
        seconds = None if after is None else after["seconds"]
        return self._store.add_results(batch, name, content, seconds).id

    def _expired_lines(self, batch: BatchRecord, work: Path) -> Iterator[bytes]:
        """Yield the lines for the requests that were not run in time."""
        done = {json.loads(line)["custom_id"] for line in _lines(work)}
        path, endpoint = self._store.path(batch.fields["input_file_id"]), batch.fields["endpoint"]
        message = "the request was not run within the completion window"
        for item in read_requests(path, self._state.config.limits, endpoint=endpoint):
            if isinstance(item, BatchRequest) and item.custom_id not in done:
                yield json.dumps(error_line(item.custom_id, "batch_expired", message)).encode() + b"\n"


async def _open(path: Path) -> OutputFile:
    """Open a file of results in a thread; close it if the task is cancelled meanwhile."""
    opening = asyncio.ensure_future(asyncio.to_thread(OutputFile, path))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close)
        raise


def _close(opening: asyncio.Future[OutputFile]) -> None:
    if opening.exception() is None:
        opening.result().close()


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the complete lines of a file of results."""
    if path.exists():
        with open(path, "rb") as file:
            yield from (line for line in file if line.endswith(b"\n"))


def _counts(output: OutputFile, batch: BatchRecord) -> dict[str, int]:
    failed = output.failed
    return {"total": batch.fields["request_counts"]["total"], "completed": len(output.done) - failed, "failed": failed}
