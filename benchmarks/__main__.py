"""Run the benchmarks and write docs/benchmarks.md.

usage: python -m benchmarks [generation|contention ...] [--runs N] [--report-only]
"""

from __future__ import annotations

import argparse
import sys

from benchmarks import contention, generation, report

ALL = {"generation": generation.main, "contention": contention.main}


def main() -> int:
    """Measure what is asked for, then write the page."""
    parser = argparse.ArgumentParser(description="Compare the package with the engines' native programs.")
    parser.add_argument("names", nargs="*", choices=[*ALL, []], help="default: all")
    parser.add_argument("--runs", type=int, default=5, help="counted runs of each measurement")
    parser.add_argument("--report-only", action="store_true", help="write the page from the figures that were kept")
    arguments = parser.parse_args()
    if not arguments.report_only:
        for name in arguments.names or ALL:
            print(f"== {name}", flush=True)
            ALL[name](arguments.runs)
    print(f"wrote {report.write()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
