"""The command line: measure, store the figures, write the page."""

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

Measure side by side, store the figures in build/benchmarks/, and write FOLDER/benchmarks.md with its charts."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the named benchmarks, or all; return 1 if one could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", usage=USAGE)
    default = f"default: all but {', '.join(ON_REQUEST)}"
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; {default}")
    parser.add_argument("--quick", action="store_true", help="two short rounds, as a test")
    parser.add_argument("--runs", type=int, help="rounds after the warm-up (default: 5)")
    parser.add_argument("--output", type=Path, default=ROOT / "docs", metavar="FOLDER", help="default: docs")
    parser.add_argument(
        "--report-only", action="store_true", help="write the page from the stored figures, without measuring"
    )
    chosen = parser.parse_args(argv)
    for name in chosen.names:
        if name not in NAMES:
            parser.error(f"NAME is {name!r}, expected one of {', '.join(NAMES)}")
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
    """Measure and store the figures. A benchmark with a missing requirement is skipped with a message."""
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
            print(f"   note: other processes kept {busy:.2f} cores busy; these figures are unreliable")
    return complete
