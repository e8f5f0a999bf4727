"""Tables and charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

COLOURS = ("#3b6ea5", "#e08a3c", "#5a9367", "#9a6fb0")


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Return a table in Markdown: first column left-aligned, figures right-aligned."""
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    return [*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows), ""]


def commands(lines: Sequence[str]) -> list[str]:
    """Return commands as a shell block."""
    return ["```sh", *lines, "```", ""]


def image(path: Path, text: str) -> list[str]:
    """Return the reference to a chart in a folder beside the page."""
    return [f"![{text}]({path.parent.name}/{path.name})", ""]


def percent(ratio: float) -> str:
    """Return a ratio in per cent."""
    return f"{100 * ratio:.0f}%"


def bars(path: Path, labels: Sequence[str], series: Mapping[str, Sequence[float]], unit: str) -> None:
    """Plot horizontal bars, the first label on top, with their values."""
    pyplot = plotter()
    figure, axes = pyplot.subplots(figsize=(8, 0.9 + (0.16 + 0.2 * len(series)) * len(labels)))
    height = 0.8 / len(series)
    for i, (name, values) in enumerate(series.items()):
        places = [y + (i + 0.5) * height - 0.4 for y in range(len(labels))]
        drawn = axes.barh(places, values, height * 0.92, label=name, color=COLOURS[i % len(COLOURS)])
        axes.bar_label(drawn, [f"{value:.3g}" for value in values], padding=3, fontsize=8)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    finish(figure, axes, path, xlabel=unit)


def lines(
    path: Path, x: Sequence[float], series: Mapping[str, Sequence[float]], xlabel: str, ylabel: str, mark: str
) -> None:
    """Plot one line for each series over the same `x`; `mark` labels x = 0."""
    pyplot = plotter()
    figure, axes = pyplot.subplots(figsize=(8, 3))
    for i, (name, values) in enumerate(series.items()):
        axes.plot(x, values, label=name, color=COLOURS[i % len(COLOURS)], linewidth=1.8)
    axes.axvline(0, color="#888888", linewidth=1, linestyle="--")
    axes.set_ylim(0, 1.15 * max(max(values) for values in series.values()))
    axes.annotate(mark, (0, axes.get_ylim()[1]), xytext=(4, -10), textcoords="offset points", fontsize=8)
    finish(figure, axes, path, xlabel=xlabel, ylabel=ylabel)


def plotter() -> Any:
    """Return pyplot, configured for reproducible files."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams.update(
        {
            "svg.hashsalt": "cyllama",
            "svg.fonttype": "none",
            "font.family": "sans-serif",
            "font.size": 9,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#e5e5e5",
            "axes.edgecolor": "#999999",
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    )
    from matplotlib import pyplot

    return pyplot


def finish(figure: Any, axes: Any, path: Path, *, xlabel: str, ylabel: str = "") -> None:
    """Label, save and close."""
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight", facecolor="white")
    plotter().close(figure)
