"""Tables, charts and text of `contention.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import show
from benchmarks.measure import Figures, Spread, digits

WHEN = ("before", "after")


def section(figures: Figures, charts: Path) -> list[str]:
    """Return the part of the page."""
    generation = speeds(figures, "generation")
    whisper = speeds(figures, "whisper")
    return [
        "*Before* is a team of fixed size whose threads spin at every barrier, as upstream's do "
        "(`GGML_TEAM_FIXED=1 GGML_BARRIER_SPINS=-1`); *after* is the package as it is: the team follows the cores "
        "that are free, and waiting threads sleep ([Threads](dev/threads.md)). The competing process "
        "computes without pause. All situations are measured in turn; *kept* is the share of the idle speed, "
        "and the last column is after / before, both pair by pair.",
        "",
        *show.commands(figures["commands"]),
        "### Generation through Python, tokens per second",
        "",
        *part(figures["situations"], generation, generation),
        *chart(charts / "contention-generation.svg", figures["situations"], generation, "tokens/s"),
        reading("generation", figures["situations"], generation),
        "",
        "### whisper's decoder (native whisper-cli, tiny.en), milliseconds per token",
        "",
        *part(figures["situations"], figures["whisper"], whisper),
        *chart(charts / "contention-whisper.svg", figures["situations"], whisper, "tokens/s"),
        reading("whisper's decoder", figures["situations"], whisper),
        "",
        *idle(figures["idle"]),
        *growth(figures["growth"], charts),
    ]


def speeds(figures: Figures, what: str) -> dict[str, dict[str, Spread]]:
    """Return tokens per second by situation and when; whisper's are made of its times."""
    found: dict[str, dict[str, Spread]] = {}
    for situation, columns in figures[what].items():
        found[situation] = {when: speed_of(columns[when]) for when in WHEN}
    return found


def speed_of(column: dict[str, Spread]) -> Spread:
    """Return tokens per second of one measurement."""
    if "generation" in column:
        return column["generation"]
    return Spread(tuple(1000 / value for value in column["decode"].values))


def part(situations: list[str], shown: dict[str, Any], speed: dict[str, dict[str, Spread]]) -> list[str]:
    """Return the table of one engine: what is shown, and what the speeds say."""
    rows = []
    for situation in situations:
        cells: list[object] = [situation]
        for when in WHEN:
            value = shown[situation][when]
            kept = speed[situation][when] / speed[situations[0]][when]
            cells += [value if isinstance(value, Spread) else value["decode"], show.percent(kept.median)]
        rows.append([*cells, speed[situation]["after"] / speed[situation]["before"]])
    return show.table(("", "before", "kept", "after", "kept", "speed, after / before"), rows)


def chart(path: Path, situations: list[str], speed: dict[str, dict[str, Spread]], unit: str) -> list[str]:
    """Make the chart of one engine."""
    show.bars(path, situations, {when: [speed[name][when].median for name in situations] for when in WHEN}, unit)
    return show.image(path, "Tokens per second in each situation, before and after")


def reading(what: str, situations: list[str], speed: dict[str, dict[str, Spread]]) -> str:
    """Return a summary of a table."""
    parts = []
    for situation in situations[1:]:
        kept = {when: show.percent((speed[situation][when] / speed[situations[0]][when]).median) for when in WHEN}
        gain = digits((speed[situation]["after"] / speed[situation]["before"]).median)
        parts.append(
            f"With {situation}, {what} keeps {kept['after']} of its idle speed, before {kept['before']}: "
            f"it is {gain} times as fast."
        )
    return " ".join(parts)


def idle(found: dict[str, Any]) -> list[str]:
    """Return the cost on an idle machine."""
    ratios = {}
    for what, columns in found.items():
        ratios[what] = speed_of(columns["after"]) / speed_of(columns["before"])
    rows = [(name, ratio) for name, ratio in ratios.items()]
    worst = min(ratios.values(), key=lambda ratio: ratio.median)
    return [
        "### Cost on an idle machine",
        "",
        "Speed after / before without a competing process, in pairs run one after the other.",
        "",
        *show.table(("", "after / before"), rows),
        f"A ratio of 1 means no cost; the lower of the two medians is {worst.median:.3f}, and pairs on this machine "
        f"scatter from {digits(min(worst.values))} to {digits(max(worst.values))}.",
        "",
    ]


def growth(found: dict[str, Any], charts: Path) -> list[str]:
    """Return the recovery times."""
    path = charts / "contention-growth.svg"
    middles = [start + found["window"] / 2 for start in found["starts"]]
    show.lines(path, middles, found["speed"], "seconds since the competing process ended", "tokens/s", "process ends")
    seconds = found["seconds"]
    milliseconds = {name: Spread(tuple(1000 * value for value in seconds[name].values)) for name in seconds}
    rows = [
        ("the team has its full size", milliseconds["team"]),
        (f"a window of 0.1 s has {show.percent(found['back'])} of the final speed", milliseconds["speed"]),
    ]
    return [
        "### Recovery",
        "",
        "Generation next to a competing process on every core, which ends at 0; speed in windows of 0.1 s, and "
        "milliseconds until team and speed have recovered.",
        "",
        *show.commands([found["command"]]),
        *show.table(("", "ms after the competing process ended"), rows),
        *show.image(path, "Tokens per second before and after the competing process ends"),
        "The load is measured ten times a second, so the team cannot recover before the next measurement; it does so "
        "after "
        f"{digits(milliseconds['team'].median)} ms.",
        "",
    ]
