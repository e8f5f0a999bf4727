"""Time until a cancelled call returns, and correctness of the next response: a hundred runs of each kind."""

from __future__ import annotations

import asyncio
import functools
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import command, show
from benchmarks.measure import Figures, Missing, Rounds, Spread, model

TITLE = "Cancellation"
LONG = "The quick brown fox jumps over the lazy dog. " * 600
QUESTION, ANSWER = "What is the capital of France? Answer with one word.", "Paris"


def after(seconds: float, call: Callable[[], None], work: Callable[[], object], ends: type[BaseException]) -> float:
    """Return the milliseconds from `call`, which runs after `seconds`, to the end of `work`."""
    moment = 0.0

    def stop() -> None:
        nonlocal moment
        moment = time.perf_counter()
        call()

    timer = threading.Timer(seconds, stop)
    timer.start()
    try:
        work()
    except ends:
        return 1000 * (time.perf_counter() - moment)
    finally:
        timer.cancel()
        timer.join()
    raise Missing("a call ended before it was cancelled")


def kinds(llm: Any) -> dict[str, Callable[[float], float]]:
    """Return the kinds of cancellation, each as a function of the delay in seconds."""
    from cyllama import LLM
    from cyllama.errors import CancelledError

    def flagged(seconds: float, work: Callable[[Any], object]) -> float:
        stop = threading.Event()
        return after(seconds, stop.set, lambda: work(stop), CancelledError)

    def ask(prompt: str, **more: Any) -> Any:
        return llm.complete(prompt, max_tokens=4000, ignore_eos=True, cache_prompt=False, **more)

    def task(seconds: float, prompt: str) -> float:
        async def talk() -> float:
            job = asyncio.create_task(llm.acomplete(prompt, max_tokens=4000, ignore_eos=True, cache_prompt=False))
            await asyncio.sleep(seconds)
            start = time.perf_counter()
            job.cancel()
            try:
                await job
            except asyncio.CancelledError:
                return 1000 * (time.perf_counter() - start)
            raise Missing("a task ended before it was cancelled")

        return asyncio.run(talk())

    def dropped(seconds: float) -> float:
        stream = ask("A story.", stream=True)
        next(stream)
        time.sleep(seconds)
        start = time.perf_counter()
        del stream
        return 1000 * (time.perf_counter() - start)

    def interrupted(seconds: float, prompt: str) -> float:
        return after(seconds, lambda: signal.raise_signal(signal.SIGINT), lambda: ask(prompt), KeyboardInterrupt)

    return {
        "while loading": lambda s: flagged(s / 10, lambda stop: LLM(model(), n_ctx=4096, cancel=stop)),
        "in a prompt of 6,000 tokens": lambda s: flagged(s, lambda stop: ask(LONG, cancel=stop)),
        "while generating": lambda s: flagged(s, lambda stop: ask("A story.", cancel=stop)),
        "a task, in a prompt": functools.partial(task, prompt=LONG),
        "a task, generating": functools.partial(task, prompt="A story."),
        "a stream that is deleted": dropped,
        "Ctrl-C in a prompt": functools.partial(interrupted, prompt=LONG),
        "Ctrl-C, generating": functools.partial(interrupted, prompt="A story."),
    }


def measure(rounds: Rounds) -> Figures:
    """Measure each kind a hundred times with varying delays; check and time the response that follows."""
    from cyllama import LLM

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for background jobs
    found: Figures = {"times": rounds.pick(100, 5), "kinds": {}}
    with LLM(model(), n_ctx=8192, n_parallel=2) as llm:
        for name, cancel in kinds(llm).items():
            ends, nexts = [], []
            for i in range(found["times"]):
                ends.append(cancel(0.05 + 0.002 * i))
                start = time.perf_counter()
                if ANSWER not in llm.chat(QUESTION, temperature=0, max_tokens=8).text:
                    raise Missing(f"after cancelling ({name}) the next response was wrong")
                nexts.append(1000 * (time.perf_counter() - start))
            found["kinds"][name] = {"end": Spread(tuple(ends)), "next": Spread(tuple(nexts))}
            print(f"   {name}: {found['kinds'][name]['end']} ms", flush=True)
    return found


def section(figures: Figures, charts: Path) -> list[str]:
    """Return the part of the page."""
    return [
        "Milliseconds from the cancellation to the end of the call, and of the next response, which was correct "
        f"each time: median, lowest and highest of {figures['times']}.",
        "",
        *show.table(
            ("cancelled", "end of the call", "next response"),
            [(name, row["end"], row["next"]) for name, row in figures["kinds"].items()],
        ),
    ]


if __name__ == "__main__":
    sys.exit(command.main(["cancelling", *sys.argv[1:]]))
