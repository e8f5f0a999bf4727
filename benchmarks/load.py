"""The server with 64 clients: all engines at once, and chats compared with the native server."""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks import command, show
from benchmarks.measure import ROOT, Figures, Missing, Rounds, figures_of, in_turn, model, python, threads
from benchmarks.serving import cyllama_server
from benchmarks.serving import server as native_server

TITLE = "Server load"
CLIENTS = 64
SLOTS = 64
SPEECH = ROOT / "tests" / "data" / "recordings" / "jfk.wav"
CACHE_MIB = 64  # size of the prompt cache: full before the first measurement of memory
WARM = 1 / 3  # of the time, before the first measurement of memory
MIB = 1 << 20

CONFIG = """
[limits]
image_queue = 16
audio_queue = 4

[models.smol]
model = "{smol}"
n_ctx = {n_ctx}
n_parallel = {slots}
n_threads = {threads}
options = {{ "cache-ram" = {cache} }}
preload = true
"""
OTHERS = """
[models.minilm]
model = "minilm-l6"
embedding = true
preload = true

[models.reranker]
model = "tiny-random-reranker"
reranking = true
preload = true

[models.hearing]
kind = "whisper"
model = "tiny.en"
preload = true

[models.shapes]
kind = "sd"
model = "tiny-shapes"
preload = true
"""


def ours(*, alone: bool) -> contextlib.AbstractContextManager[tuple[str, int]]:
    """Run cyllama's server with the chat model alone or with all engines; its address and process."""
    text = CONFIG.format(smol=model(), n_ctx=512 * SLOTS, slots=SLOTS, threads=threads(), cache=CACHE_MIB)
    return cyllama_server(text if alone else text + OTHERS)


def clients_of(url: str, kind: str, seconds: float, *more: object) -> list[str]:
    """Return the command of the clients."""
    return python("load_clients", url, kind, "--clients", CLIENTS, "--seconds", seconds, *more)


def chats(seconds: float, tokens: int, *, native: bool) -> dict[str, float]:
    """Return tokens per second of chats only."""
    with native_server(SLOTS) if native else ours(alone=True) as found:
        url = found if isinstance(found, str) else found[0]
        figures: dict[str, Any] = figures_of(clients_of(url, "chat", seconds, "--tokens", tokens))
    if figures["n_errors"]:
        raise Missing(f"the chats failed: {figures['errors'][0]}")
    return {"tokens per second": figures["tokens per second"]}


def mixture(seconds: float) -> dict[str, Any]:
    """Return the responses of all engines, and the growth of memory."""
    with ours(alone=False) as (url, pid):
        sizes: list[int] = []
        done = threading.Event()

        def look() -> None:
            began = time.monotonic()
            while not done.wait(1.0):
                if time.monotonic() - began > WARM * seconds:
                    sizes.append(resident(pid))

        watcher = threading.Thread(target=look)
        watcher.start()
        try:
            found: dict[str, Any] = figures_of(clients_of(url, "mixed", seconds, "--sound", SPEECH))
        finally:
            done.set()
            watcher.join()
    third = max(1, len(sizes) // 3)
    return found | {"rss_mib": [sum(part) / len(part) / MIB for part in (sizes[:third], sizes[-third:])]}


def resident(pid: int) -> int:
    """Return the resident bytes of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise Missing("the server has ended")


def measure(rounds: Rounds) -> Figures:
    """Measure all in turn."""
    seconds = rounds.pick(60, 10)
    found: Figures = {"seconds": seconds, "mixed": mixture(seconds)}
    short = rounds.pick(20, 8)
    loads = {
        name: functools.partial(chats, short, 16, native=native)
        for name, native in (("cyllama", False), ("llama-server", True))
    }
    return found | {"chats": in_turn(rounds.count, loads), "chat seconds": short}


def section(figures: Figures, charts: Path) -> list[str]:
    """Return the part of the page."""
    mixed = figures["mixed"]
    health, sizes = mixed["health_ms"], mixed["rss_mib"]
    total = sum(mixed["statuses"].values())
    later = sum(count for name, count in mixed["statuses"].items() if name.endswith(" 429"))
    lines = [
        f"{CLIENTS} clients for {figures['seconds']} s, on the machine of the server: chats, completions, embeddings, "
        f"reranking, tokens, audio and images. {total:,} responses, of which {later:,} with status 429; "
        f"{mixed['n_errors']} errors. `/health`: median {health['p50']:.1f} ms, 99% within {health['p99']:.1f} ms. "
        f"Memory from the first third after the start to the last: {sizes[0]:.0f} to {sizes[1]:.0f} MiB.",
        "",
        f"Chats only, {CLIENTS} clients, half of them streaming, {figures['chat seconds']} s, tokens per second:",
        "",
    ]
    chat = {name: row["tokens per second"] for name, row in figures["chats"].items()}
    ratio = chat["cyllama"] / chat["llama-server"]
    rows = [("chats", chat["cyllama"], chat["llama-server"], ratio)]
    return lines + show.table(("", "cyllama serve", "llama-server", "ratio"), rows)


if __name__ == "__main__":
    sys.exit(command.main(["load", *sys.argv[1:]]))
