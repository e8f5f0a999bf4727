"""Limits of the machine for matrix products, measured by the small program limits.c."""

from __future__ import annotations

import shutil
import sys

from benchmarks.measure import RESULTS, ROOT, Missing, figures_of, run, threads

SOURCE, PROGRAM = ROOT / "benchmarks" / "limits.c", RESULTS / "limits"


def compiled() -> str:
    """Return the path of the program, compiled on first use."""
    if not PROGRAM.exists() or PROGRAM.stat().st_mtime < SOURCE.stat().st_mtime:
        compiler = shutil.which("cc")
        if compiler is None:
            raise Missing("the limits of the machine need a C compiler (cc)")
        PROGRAM.parent.mkdir(parents=True, exist_ok=True)
        run([compiler, "-O3", "-pthread", str(SOURCE), "-o", str(PROGRAM)])
    return str(PROGRAM)


def command() -> list[str]:
    """Return the command, which prints JSON."""
    return [compiled(), str(threads())]


if __name__ == "__main__":
    print(figures_of(command()))
    sys.exit()
