"""Two engines in one process, in sequence and in parallel; prints the seconds of each as JSON.

usage: python -m benchmarks.together_once FIRST SECOND [--seconds S] [--threads N]

FIRST and SECOND are of llm, whisper, sd. Each gets as much work as takes it about S seconds alone.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cyllama import set_threads
from cyllama.pipelines import ModelPool

SPEECH = Path(__file__).resolve().parent.parent / "tests" / "data" / "recordings" / "jfk.wav"


def llm(model: Any) -> None:
    """Generate 32 tokens."""
    model.complete("Once upon a time", max_tokens=32, temperature=0, ignore_eos=True, cache_prompt=False)


def whisper(model: Any) -> None:
    """Transcribe 11 seconds of speech."""
    model(str(SPEECH), temperature=0.0)


def sd(model: Any) -> None:
    """Generate a small image."""
    model.txt2img("a red circle", seed=1, steps=8, progress=False)


WORK: dict[str, tuple[Callable[[Any], None], str, str]] = {
    "llm": (llm, "llm", "smollm2-135m-instruct"),
    "whisper": (whisper, "whisper", "tiny.en"),
    "sd": (sd, "sd", "tiny-shapes"),
}


def timed(*jobs: Callable[[], None]) -> float:
    """Return the seconds of jobs, each in its own thread."""
    workers = [threading.Thread(target=job) for job in jobs]
    start = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return time.perf_counter() - start


def main() -> None:
    """Measure alone, then in turn: in sequence, in parallel."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs=2, choices=WORK)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    set_threads(options.threads)
    with ModelPool() as pool:
        jobs = []
        for name in options.names:
            once, kind, model = WORK[name]
            with pool.use(kind, model) as loaded:
                timed(lambda: once(loaded))  # noqa: B023 - it runs at once
                count = max(1, round(options.seconds / timed(lambda: once(loaded))))  # noqa: B023
            jobs.append(_repeated(pool, name, count))
        after = sum(timed(job) for job in jobs)
        at_once = timed(*jobs)
        after = (after + sum(timed(job) for job in jobs)) / 2  # the machine's load may change
    print(json.dumps({"one after the other": after, "at once": at_once}))


def _repeated(pool: ModelPool, name: str, count: int) -> Callable[[], None]:
    once, kind, model = WORK[name]

    def job() -> None:
        with pool.use(kind, model) as loaded:
            for _ in range(count):
                once(loaded)

    return job


if __name__ == "__main__":
    main()
