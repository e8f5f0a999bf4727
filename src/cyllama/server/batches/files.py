"""Run a file of requests: ``cyllama batch``."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from cyllama.errors import CyllamaError
from cyllama.server.batches.application import encode_body
from cyllama.server.batches.output import OutputFile
from cyllama.server.batches.requests import (
    BatchInput,
    BatchRequest,
    LineFault,
    batch_error,
    error_line,
    read_requests,
    result_line,
)
from cyllama.server.batches.run import default_parallel, run_requests
from cyllama.server.batches.workers import Worker
from cyllama.server.config import ServerConfig

__all__ = ["BatchProgress", "run_file"]

SHOWN_FAULTS = 10
STARTS = 2  # of a request whose worker ends
ORDER_WINDOW = 8  # requests that may wait for an earlier one, for each that runs

MakeWorkers = Callable[[ServerConfig, int], Sequence[Worker]]
"""Called with the configuration and the number of requests that each worker runs at the same time."""


@dataclass(frozen=True)
class BatchProgress:
    """How far a batch is.

    Attributes
    ----------
    done, failed : int
        Results, and those about errors.
    total : int
    resumed : int
        Results of earlier runs.
    """

    done: int
    failed: int
    total: int
    resumed: int


def run_file(
    config: ServerConfig,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    make_workers: MakeWorkers,
    *,
    ordered: bool = False,
    parallel: int | None = None,
    on_progress: Callable[[BatchProgress], object] | None = None,
) -> BatchProgress:
    """Run the requests of a file that have no result yet.

    Parameters
    ----------
    config : ServerConfig
    source, target : path
        Requests and results, one on each line. Results are appended.
    make_workers : callable
    ordered : bool
        Write the results in the order of the requests; otherwise as they come.
    parallel : int, optional
        Requests of a worker that run at the same time; by default `default_parallel`.
    on_progress : callable, optional
        Called after each result.

    Raises
    ------
    ValueError
        A line of `source` is no request, or `target` belongs to other requests.
    OSError
    KeyboardInterrupt
        The results that exist are kept; the next run continues.
    """
    if os.path.exists(target) and os.path.samefile(source, target):
        raise ValueError(f"the output is the input, {os.fspath(target)!r}; expected another file")
    found = BatchInput.check(source, config.limits)
    if found.faults:
        shown = "; ".join(map(str, found.faults[:SHOWN_FAULTS]))
        more = f"; and {len(found.faults) - SHOWN_FAULTS} more" if len(found.faults) > SHOWN_FAULTS else ""
        raise ValueError(f"{os.fspath(source)} is no batch: {shown}{more}")
    count = default_parallel(config) if parallel is None else parallel
    with OutputFile(target) as output:
        _check_target(output, found, ordered)
        resumed, failed = len(output.done), output.failed

        def progress() -> BatchProgress:
            return BatchProgress(len(output.done), failed, len(found.ids), resumed)

        def write(result: Mapping[str, Any]) -> None:
            nonlocal failed
            output.write(result)
            failed += output.done[result["custom_id"]]
            if on_progress is not None:
                on_progress(progress())

        if resumed < len(found.ids):
            asyncio.run(_run(config, make_workers, count, _remaining(found, output, config), write, ordered))
        return progress()


def _check_target(output: OutputFile, found: BatchInput, ordered: bool) -> None:
    """Check that the results of a file belong to the requests.

    Raises
    ------
    ValueError
    """
    other = next((custom_id for custom_id in output.done if custom_id not in found.ids), None)
    if other is not None:
        raise ValueError(f"the output has a result for the custom_id {other!r:.200}, which the input does not have")
    if ordered and list(output.done) != list(islice(found.ids, len(output.done))):
        raise ValueError("the output is in another order than the input; continue it without --ordered")


def _remaining(found: BatchInput, output: OutputFile, config: ServerConfig) -> Iterator[BatchRequest]:
    done = set(output.done)
    for item in read_requests(found.path, config.limits):
        if isinstance(item, LineFault):
            raise ValueError(f"the input has changed: {item}")
        if item.custom_id not in done:
            done.add(item.custom_id)
            yield item


async def _run(
    config: ServerConfig,
    make_workers: MakeWorkers,
    count: int,
    requests: Iterator[BatchRequest],
    write: Callable[[Mapping[str, Any]], None],
    ordered: bool,
) -> None:
    workers = await asyncio.to_thread(make_workers, config, count)
    free: asyncio.Queue[Worker] = asyncio.Queue()
    for _ in range(count):
        for worker in workers:
            free.put_nowait(worker)

    async def send(request: BatchRequest) -> Mapping[str, Any]:
        rejected = batch_error(request)
        if rejected is not None:
            return result_line(request, rejected)
        body = await asyncio.to_thread(encode_body, request.body)
        for _ in range(STARTS):
            worker = await free.get()
            try:
                return result_line(request, await worker.request(request.url, body))
            except ConnectionError:
                continue
            finally:
                free.put_nowait(worker)
        return error_line(request.custom_id, "worker_lost", f"the worker ended {STARTS} times during this request")

    window = count * len(workers) * (ORDER_WINDOW if ordered else 1)
    try:
        await run_requests(requests, send, write, window=window, ordered=ordered)
    finally:
        closed = await asyncio.gather(*(worker.close() for worker in workers), return_exceptions=True)
    failures = [error for error in closed if isinstance(error, Exception)]
    if failures:
        raise CyllamaError(f"a worker could not be closed: {failures[0]}") from failures[0]
