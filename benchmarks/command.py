"""The command line: measure what is asked for, keep the figures, write the page."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import NAMES, ON_REQUEST, report
from benchmarks.measure import ROOT, Missing, Others, Rounds, save

USAGE = """python -m benchmarks [NAME ...] [--quick] [--runs N] [--output FOLDER] [--report-only]

Measure side by side, keep the figures in build/benchmarks/, and write FOLDER/benchmarks.md with its charts."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmarks that are named, or all; 1 if one could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", usage=USAGE)
    default = f"default: all but {', '.join(ON_REQUEST)}"
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; {default}")
    parser.add_argument("--quick", action="store_true", help="two short rounds, to see that all works")
    parser.add_argument("--runs", type=int, help="rounds that count, after one that does not (default: 5)")
    parser.add_argument("--output", type=Path, default=ROOT / "docs", metavar="FOLDER", help="default: docs")
    parser.add_argument(
        "--report-only", action="store_true", help="only write the page, from the figures that were kept"
    )
    chosen = parser.parse_args(argv)
    for name in chosen.names:
        if name not in NAMES:
            parser.error(f"no benchmark is called {name!r}; there are {', '.join(NAMES)}")
    if chosen.runs is not None and chosen.runs < 1:
        parser.error(f"--runs is {chosen.runs}, expected 1 or more")
    rounds = Rounds(chosen.runs or (2 if chosen.quick else 5), chosen.quick)
    complete = chosen.report_only or measure_all(
        chosen.names or [name for name in NAMES if name not in ON_REQUEST], rounds
    )
    try:
        print(f"wrote {report.write(chosen.output)}")
    except Missing as error:
        print(f"no page was written: {error}", file=sys.stderr)
        return 1
    return 0 if complete else 1


def measure_all(names: Sequence[str], rounds: Rounds) -> bool:
    """Measure and keep the figures; a benchmark that lacks something says so, and the others go on."""
    complete = True
    for name in names:
        start, others = time.monotonic(), Others()
        print(f"== {name}", flush=True)
        try:
            figures = importlib.import_module(f"benchmarks.{name}").measure(rounds)
        except Missing as error:
            print(f"{name} was not measured: {error}", file=sys.stderr)
            complete = False
            continue
        busy = others.cores()
        save(name, figures, rounds, busy)
        print(f"   {time.monotonic() - start:.0f} s", flush=True)
        if busy > report.QUIET:
            print(f"   note: other processes kept {busy:.2f} cores busy; these figures are not worth much")
    return complete
