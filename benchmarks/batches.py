"""Batches: rows and requests against the engine's own parallel slots, and a file of 2,000 requests with three kills."""

from __future__ import annotations

import functools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import command, show
from benchmarks.measure import Figures, Missing, Rounds, in_turn, model

TITLE = "Batches"
SLOTS = 4
SETTINGS = {"n_ctx": 4096, "n_parallel": SLOTS}
OPTIONS: dict[str, Any] = {"max_tokens": 32, "temperature": 0, "ignore_eos": True}
BUSY = "llamacpp:n_busy_slots_per_decode"
TINY = "tiny-random-llama"
KILLS = 3


def questions(count: int) -> list[str]:
    """Return different messages of the same length."""
    return [f"Tell me a fact about the number {1000 + i}." for i in range(count)]


def request_lines(texts: list[str], name: str, options: dict[str, Any]) -> str:
    """Return chats in OpenAI's batch format."""
    lines = []
    for i, text in enumerate(texts):
        body = {"model": name, "messages": [{"role": "user", "content": text}], **options}
        lines.append(json.dumps({"custom_id": f"r{i}", "method": "POST", "url": "/v1/chat/completions", "body": body}))
    return "\n".join(lines)


class Costs:
    """The generated tokens per second, and the milliseconds of the processor for each token, from now on."""

    def __init__(self, rows: list[str]) -> None:
        self._tokens = len(rows) * OPTIONS["max_tokens"]
        self._start, self._cpu = time.perf_counter(), time.process_time()

    def so_far(self) -> dict[str, float]:
        """Return the figures if all rows are computed."""
        return {
            "speed": self._tokens / (time.perf_counter() - self._start),
            "cpu": 1000 * (time.process_time() - self._cpu) / self._tokens,
        }


def costs(rows: list[str], work: Callable[[], object]) -> dict[str, float]:
    """Return the costs of the work."""
    begun = Costs(rows)
    work()
    return begun.so_far()


def busy_slots(llm: Any) -> dict[str, float]:
    """Return the mean number of slots that computed at the same time."""
    with llm.request("metrics") as response:
        lines = response.data.decode().splitlines()
    return {"busy": float(next(line.split()[1] for line in lines if line.startswith(BUSY)))}


def slots(rows: list[str]) -> dict[str, float]:
    """Compute the rows with threads that call the engine."""
    from cyllama import LLM

    with LLM(model(), **SETTINGS) as llm, ThreadPoolExecutor(2 * SLOTS) as threads:
        found = costs(rows, lambda: list(threads.map(lambda text: llm.chat(text, **OPTIONS), rows)))
        return found | busy_slots(llm)


def callable_rows(rows: list[str]) -> dict[str, float]:
    """Compute the rows as one batch."""
    from cyllama.batch import Chat
    from cyllama.pipelines import default_pool

    chat = Chat(model(), settings=SETTINGS, **OPTIONS)
    chat({"messages": ["Hello"]})
    try:
        found = costs(rows, lambda: chat({"messages": rows}))
        with default_pool().use("llm", model(), **SETTINGS) as llm:
            return found | busy_slots(llm)
    finally:
        default_pool().unload()


def file_of_requests(rows: list[str]) -> dict[str, float]:
    """Compute the rows as ``cyllama batch`` does."""
    from cyllama.server import ServerConfig
    from cyllama.server.batches.files import run_file
    from cyllama.server.batches.workers import LocalWorker

    class Watched(LocalWorker):
        async def close(self) -> None:
            self.costs = begun.so_far()  # all rows are computed; freeing the model does not count, as loading it
            with self._state.pool.use("llm", model(), **SETTINGS) as llm:
                self.busy = busy_slots(llm)
            await super().close()

    config = ServerConfig.from_dict({"models": {"chat": {"model": model(), "preload": True, **SETTINGS}}})
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in"), Path(folder, "out")
        source.write_text(request_lines(rows, "chat", OPTIONS))
        worker = Watched(config, 2 * SLOTS)
        begun = Costs(rows)
        run_file(config, source, target, lambda *_: [worker])
        return worker.costs | worker.busy


def measure(rounds: Rounds) -> Figures:
    """Measure the ways in turn, then resume a file after kills."""
    rows = questions(rounds.pick(64, 16))
    ways = {"slots": slots, "Chat": callable_rows, "batch": file_of_requests}
    found = in_turn(rounds.count, {way: functools.partial(run, rows) for way, run in ways.items()})
    return {"rows": len(rows), "ways": found, "resumed": resume(rounds.pick(2000, 200))}


def resume(count: int) -> Figures:
    """Kill ``cyllama batch`` three times, resume it, and check that each request has one result."""
    chance = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in"), Path(folder, "out")
        source.write_text(request_lines(questions(count), TINY, {"max_tokens": 4, "temperature": 0}))
        words = [
            sys.executable,
            "-m",
            "cyllama",
            "batch",
            str(source),
            str(target),
            "-m",
            TINY,
            "--n-ctx",
            "2048",
            "-q",
        ]
        sizes = []
        start = time.perf_counter()
        for i in range(KILLS):
            aim = count * (i + 1) // (KILLS + 1) + chance.randint(0, count // 20)
            with subprocess.Popen(words, stderr=subprocess.DEVNULL) as program:
                while not target.exists() or target.read_bytes().count(b"\n") < aim:
                    if program.poll() is not None:
                        raise Missing("cyllama batch ended before it was killed")
                    time.sleep(0.005)
                os.kill(program.pid, signal.SIGKILL)
            sizes.append(target.read_bytes().count(b"\n"))
        if subprocess.run(words, check=False).returncode != 0:
            raise Missing("cyllama batch failed")
        seconds = time.perf_counter() - start
        results = [json.loads(line) for line in target.read_text().splitlines()]
    ids = [item["custom_id"] for item in results]
    good = sum(item["response"]["status_code"] == 200 for item in results)
    return {"count": count, "lines": len(ids), "ids": len(set(ids)), "good": good, "kills": sizes, "seconds": seconds}


def section(figures: Figures, charts: Path) -> list[str]:
    """Return the part of the page."""
    found, resumed = figures["ways"], figures["resumed"]
    names = {
        "slots": f"`LLM.chat`, {2 * SLOTS} threads on {SLOTS} slots",
        "Chat": "`cyllama.batch.Chat`",
        "batch": "`cyllama batch`, one worker",
    }
    return [
        f"{figures['rows']} chats of {OPTIONS['max_tokens']} tokens each with SmolLM2 135M, {SLOTS} slots, without the "
        "time to load the model. The busy slots of `Chat` include a first request that runs alone.",
        "",
        *show.table(
            ("way", "tokens/s", "of the slots", "CPU ms/token", "of the slots", "busy slots"),
            [
                (
                    text,
                    found[way]["speed"],
                    found[way]["speed"] / found["slots"]["speed"],
                    found[way]["cpu"],
                    found[way]["cpu"] / found["slots"]["cpu"],
                    found[way]["busy"],
                )
                for way, text in names.items()
            ],
        ),
        "",
        f"A file of {resumed['count']:,} requests to the tiny model: `cyllama batch` was killed (SIGKILL) after "
        f"{', '.join(f'{size:,}' for size in resumed['kills'])} results and resumed each time. After "
        f"{resumed['seconds']:.0f} s, with four loads of the model, the file has {resumed['lines']:,} lines with "
        f"{resumed['ids']:,} different ids, {resumed['good']:,} of them with status 200.",
        "",
    ]


if __name__ == "__main__":
    sys.exit(command.main(["batches", *sys.argv[1:]]))
