"""How much memory is free: of the machine, and of the control group that limits this process."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["free_memory", "total_memory"]


def total_memory() -> int:
    """Bytes of memory that the machine has; 0 where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0


def free_memory(total: int | None = None) -> int:
    """Bytes that programs can still get.

    Parameters
    ----------
    total : int, optional
        What the machine has, for systems that do not tell what is free.
    """
    free = total_memory() if total is None else total
    for line in _lines("/proc/meminfo"):
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) * 1024
    group = _lines("/sys/fs/cgroup/memory.max")
    if group and group[0].isdecimal():
        used = [int(line.split()[1]) for line in _lines("/sys/fs/cgroup/memory.stat") if line.startswith("anon ")]
        free = min(free, int(group[0]) - sum(used))
    return max(0, free)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
