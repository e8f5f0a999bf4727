"""``cyllama batch``: run a file of requests in OpenAI's batch format."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cyllama.cli.serve import add_model_arguments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cyllama.server.batches.files import BatchProgress
    from cyllama.server.batches.workers import Worker
    from cyllama.server.config import ServerConfig

__all__ = ["add_arguments", "run"]

SOME_FAILED = 3  # exit code
MIN_INTERVAL = 0.2  # seconds between two updates of the progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; the models are those of ``cyllama serve``."""
    parser.epilog = (
        "Each line of IN is a request: custom_id, method (POST), url (a route of the server, such as "
        "/v1/chat/completions) and body. OUT gets a line for each result. If OUT exists, the requests without a result "
        f"are run. Exit codes: 0 success, 1 failure, 2 wrong usage, {SOME_FAILED} some requests have failed, 130 "
        "interrupted; the same command continues."
    )
    parser.add_argument("input", type=Path, metavar="IN", help="file of requests (JSON lines)")
    parser.add_argument("output", type=Path, metavar="OUT", help="file of results; it is continued if it exists")
    add_model_arguments(parser)
    parser.add_argument("--ordered", action="store_true", help="write the results in the order of the requests")
    parser.add_argument(
        "--parallel", type=int, metavar="N", help="requests of a worker that run at the same time (default: 2 per slot)"
    )
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes, each with its models (default: 1; with --ray: 1 per node)"
    )
    parser.add_argument("--ray", metavar="ADDRESS", help="run on a Ray cluster: auto, local or ray://HOST:PORT")
    parser.add_argument("-q", "--quiet", action="store_true", help="print no progress and no summary")


def run(arguments: argparse.Namespace) -> int:
    """Run the requests that have no result; return 3 if some requests have failed."""
    from cyllama.cli.serve import build_model_config
    from cyllama.server.batches.files import run_file

    for name in ("parallel", "workers"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} is {value}, expected 1 or more")
    config = build_model_config(arguments)
    line = None if arguments.quiet or not sys.stderr.isatty() else _Progress()

    def make(config: ServerConfig, parallel: int) -> Sequence[Worker]:
        return _workers(config, parallel, arguments.workers, arguments.ray)

    try:
        found = run_file(
            config,
            arguments.input,
            arguments.output,
            make,
            ordered=arguments.ordered,
            parallel=arguments.parallel,
            on_progress=line,
        )
    finally:
        if line is not None:
            line.close()
    if not arguments.quiet:
        text = f"{found.total:,} requests, {found.failed:,} failed"
        print(text + (f", {found.resumed:,} of an earlier run" if found.resumed else ""), file=sys.stderr)
    return SOME_FAILED if found.failed else 0


def _workers(config: ServerConfig, parallel: int, count: int | None, ray: str | None) -> Sequence[Worker]:
    from cyllama.server.batches.workers import LocalWorker, ProcessWorker

    if ray is not None:
        try:
            from cyllama.integrations.ray_batch import ray_workers
        except ModuleNotFoundError as error:
            raise ImportError(f"--ray needs the package ray: pip install 'ray[data,serve]' ({error})") from None
        workers: Sequence[Worker] = ray_workers(ray, config, parallel, count)
        return workers
    if count is None or count == 1:
        return [LocalWorker(config, parallel)]
    return [ProcessWorker(config, parallel) for _ in range(count)]


class _Progress:
    """A line with the number of results, the speed and the time that is left."""

    def __init__(self) -> None:
        from cyllama._progress import ProgressLine

        self._line = ProgressLine(sys.stderr)
        self._start, self._next = time.monotonic(), 0.0

    def __call__(self, progress: BatchProgress) -> None:
        """Show the progress, a few times in a second."""
        now = time.monotonic()
        if now < self._next and progress.done < progress.total:
            return
        self._next = now + MIN_INTERVAL
        done, seconds = progress.done - progress.resumed, now - self._start
        left = round((progress.total - progress.done) * seconds / max(1, done))
        failed = f", {progress.failed:,} failed" if progress.failed else ""
        text = f"{progress.done:,}/{progress.total:,} requests{failed}, {done / max(seconds, 1e-9):.1f}/s, "
        self._line.show(f"{text}about {left // 3600:02}:{left // 60 % 60:02}:{left % 60:02} left")

    def close(self) -> None:
        """Erase the line."""
        self._line.close()
