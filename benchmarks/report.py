"""docs/benchmarks.md and its charts, from the figures that were kept."""

from __future__ import annotations

import importlib
from pathlib import Path

from benchmarks import NAMES, show
from benchmarks.measure import Figures, Missing, load

QUIET = 0.3  # cores that other processes may keep busy: the system itself takes some


def write(folder: Path) -> Path:
    """Write the page into `folder`, its charts into ``folder/benchmarks``."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise Missing("the charts need matplotlib; install it with: pip install --group bench") from None
    kept = {name: load(name) for name in NAMES}
    found = {name: value for name, value in kept.items() if value is not None}
    if not found:
        raise Missing("no figures are kept; measure first: python -m benchmarks")
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`; the ratios are what carries over to another machine. Whole processes are run side "
        "by side, in turn (A B A B ...), after one round that does not count. A figure is the median, with the "
        "lowest and the highest; a ratio is that of the pairs, not of the medians. Nothing here is a test: no speed "
        "is asserted anywhere.",
        "",
        *machines(found),
    ]
    for name in NAMES:
        module = importlib.import_module(f"benchmarks.{name}")
        lines += [f"## {module.TITLE}", ""]
        if name not in found:
            lines += [f"Not measured yet: `python -m benchmarks {name}`.", ""]
            continue
        lines += [f"`python -m benchmarks {name}`: {conditions(found[name], timed=getattr(module, 'TIMED', True))}", ""]
        try:
            lines += module.section(found[name]["figures"], folder / "benchmarks")
        except KeyError as error:
            lines += [f"The figures that were kept have no {error}: measure again.", ""]
    target = folder / "benchmarks.md"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("\n".join(lines).rstrip() + "\n")
    return target


def machines(found: dict[str, Figures]) -> list[str]:
    """Return the table of the machine; one more for each other machine or build that figures come from."""
    lines: list[str] = []
    described: list[dict[str, str]] = []
    for value in found.values():
        if value["machine"] in described:
            continue
        described.append(value["machine"])
        names = [name for name, other in found.items() if other["machine"] == value["machine"]]
        title = "Machine and build" if len(names) == len(found) else f"Machine and build of {', '.join(names)}"
        lines += show.table((title, ""), list(value["machine"].items()))
    return [line.replace("|---|---:|", "|---|---|") for line in lines]


def conditions(kept: Figures, *, timed: bool) -> str:
    """Return when and how the figures were taken, and what speaks against them."""
    if not timed:
        return f"{kept['date']}."
    text = f"{kept['date']}, {kept['runs']} runs each"
    if kept["quick"]:
        text += ", with `--quick`: **short runs, only to see that all works**"
    if kept["others"] > QUIET:
        busy = f"other processes kept {kept['others']:.1f} cores busy"
        text += f". **The machine was not quiet ({busy}): do not rely on these figures**"
    return text + "."
