"""What a process shows from outside: its memory, and whether other threads get to run."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


def resident_bytes() -> int:
    """Memory of this process that is in use (RSS)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@dataclass
class Heart:
    """How often a thread that sleeps 1 ms at a time woke up, and its longest wait in seconds."""

    beats: int = 0
    longest: float = 0.0


@contextlib.contextmanager
def heartbeat() -> Iterator[Heart]:
    """Run such a thread beside the block: it stands still when the block keeps the GIL."""
    heart, done = Heart(), threading.Event()

    def beat() -> None:
        while not done.is_set():
            before = time.perf_counter()
            time.sleep(0.001)
            heart.beats += 1
            heart.longest = max(heart.longest, time.perf_counter() - before)

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        yield heart
    finally:
        done.set()
        thread.join()
