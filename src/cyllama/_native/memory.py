"""Memory: what is free on the machine and in the control group of the process, and what malloc keeps."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

__all__ = ["free_memory", "limit_heaps", "return_memory", "total_memory"]

M_ARENA_MAX, ARENAS = -8, 2  # malloc.h
M_MMAP_THRESHOLD, MMAP_THRESHOLD = -3, 1 << 20


def total_memory(*, swap: bool = False) -> int:
    """Return the memory of the machine in bytes; 0 if the system does not report it.

    Parameters
    ----------
    swap : bool
        Add the swap space, where the system reports it.
    """
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0
    return total + (_meminfo("SwapTotal") or 0 if swap else 0)


def free_memory(total: int | None = None) -> int:
    """Return the available memory in bytes.

    Parameters
    ----------
    total : int, optional
        The result on systems that do not report free memory; by default `total_memory`.
    """
    free = _meminfo("MemAvailable")
    if free is None:
        free = total_memory() if total is None else total
    limit = _lines("/sys/fs/cgroup/memory.max")
    if limit and limit[0].isdecimal():
        used = [int(line.split()[1]) for line in _lines("/sys/fs/cgroup/memory.stat") if line.startswith("anon ")]
        free = min(free, int(limit[0]) - sum(used))
    return max(0, free)


def return_memory() -> None:
    """Return the free pages of malloc's heaps to the system, as after an engine was closed.

    glibc has a heap for each thread that computed, and keeps in it what was freed below a block that is still in use.
    """
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def limit_heaps() -> None:
    """Let all threads share a few malloc heaps, and return large blocks to the system when they are freed.

    By default glibc uses a heap for each thread, so the memory of one transcription remains in many heaps. It also
    raises its threshold for mmap up to 32 MiB, so heaps grow by hundreds of MiB of holes.
    """
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        libc = ctypes.CDLL(None)
        libc.mallopt(M_ARENA_MAX, ARENAS)
        libc.mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD)


def _meminfo(key: str) -> int | None:
    """Return a value of /proc/meminfo in bytes; None where it is missing."""
    values = (int(line.split()[1]) * 1024 for line in _lines("/proc/meminfo") if line.startswith(f"{key}:"))
    return next(values, None)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
