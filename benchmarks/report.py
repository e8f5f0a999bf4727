"""docs/benchmarks.md and its charts, from the stored figures."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from benchmarks import NAMES
from benchmarks.measure import Figures, Missing, load

QUIET = 0.3  # cores that other processes may keep busy
SUMMARY = "Summary"


def write(folder: Path) -> Path:
    """Write the page into `folder`, its charts into ``folder/benchmarks``."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise Missing("the charts need matplotlib; install it with: pip install --group bench") from None
    target = folder / "benchmarks.md"
    earlier = sections_of(target.read_text()) if target.exists() else {}
    lines = head(earlier)
    for name in NAMES:
        module = importlib.import_module(f"benchmarks.{name}")
        lines += [f"## {module.TITLE}", "", *body(name, module, earlier.get(module.TITLE), folder)]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("\n".join(lines).rstrip() + "\n")
    return target


def head(earlier: dict[str, list[str]]) -> list[str]:
    """Return the beginning of the page; its summary is written by hand and stays."""
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`. Compare the ratios: absolute figures depend on the machine, which each section "
        "names. Whole processes run in turn (A B A B ...), after one warm-up round. A figure is the median, with the "
        "lowest and the highest value; a ratio is computed from pairs of runs, not from the medians. No test asserts "
        "a speed.",
        "",
    ]
    return [*lines, f"## {SUMMARY}", "", *earlier[SUMMARY]] if SUMMARY in earlier else lines


def body(name: str, module: ModuleType, earlier: list[str] | None, folder: Path) -> list[str]:
    """Return a section below its title: from the stored figures, or from the existing page."""
    kept = load(name)
    if kept is None:
        return earlier or [f"Not measured yet: `python -m benchmarks {name}`.", ""]
    lines = [
        f"`python -m benchmarks {name}`: {conditions(kept, timed=getattr(module, 'TIMED', True))}",
        "",
        f"Machine: {'; '.join(kept['machine'].values())}.",
        "",
    ]
    try:
        return lines + list(module.section(kept["figures"], folder / "benchmarks"))
    except KeyError as error:
        return [*lines, f"The stored figures have no {error}: measure again.", ""]


def sections_of(page: str) -> dict[str, list[str]]:
    """Return the lines below each title of the existing page."""
    parts = page.split("\n## ")[1:]
    return {part.split("\n", 1)[0]: [*part.strip().split("\n")[2:], ""] for part in parts}


def conditions(kept: Figures, *, timed: bool) -> str:
    """Return date, runs and warnings about the figures."""
    if not timed:
        return f"{kept['date']}."
    text = f"{kept['date']}, {kept['runs']} runs each"
    if kept["quick"]:
        text += ", with `--quick`: **short runs, for a test only**"
    if kept["others"] > QUIET:
        busy = f"other processes kept {kept['others']:.1f} cores busy"
        text += f". **The machine was not quiet ({busy}): do not rely on these figures**"
    return text + "."
