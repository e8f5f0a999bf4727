"""Two engines of one process in parallel, compared with in sequence: they share one thread limit."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

from benchmarks import command, show
from benchmarks.measure import Figures, Rounds, figures_of, in_turn, model, python, spell, threads
from benchmarks.together_once import WORK

TITLE = "Parallel engines"
PAIRS = (("llm", "whisper"), ("llm", "sd"), ("whisper", "sd"))
CALLED = {"llm": "text", "whisper": "speech", "sd": "image"}


def command_of(pair: tuple[str, str], rounds: Rounds) -> list[str]:
    """Return the command that measures two engines."""
    return python("together_once", *pair, "--seconds", rounds.pick(6, 2), "--threads", threads())


def measure(rounds: Rounds) -> Figures:
    """Measure each pair, in turn."""
    for _, _, name in WORK.values():
        model(name)
    commands = {pair: command_of(pair, rounds) for pair in PAIRS}
    found = in_turn(
        rounds.count, {" and ".join(pair): functools.partial(figures_of, words) for pair, words in commands.items()}
    )
    return {"commands": [spell(words) for words in commands.values()], "pairs": found}


def section(figures: Figures, charts: Path) -> list[str]:
    """Return the part of the page."""
    rows, worst = [], 0.0
    for name, found in figures["pairs"].items():
        ratio = found["at once"] / found["one after the other"]
        worst = max(worst, ratio.median)
        called = " and ".join(CALLED[engine] for engine in name.split(" and "))
        rows.append((called, found["one after the other"], found["at once"], ratio))
    return [
        "Seconds for the same work of two engines in one process: each in turn with all threads, or both at once in "
        "two Python threads. An engine that starts while another computes uses the remaining threads, at least "
        "one, and all when it is alone again.",
        "",
        *show.commands(figures["commands"]),
        *show.table(("engines", "one after the other", "at once", "ratio"), rows),
        f"In parallel the work takes at most {show.percent(worst)} of the time in sequence.",
        "",
    ]


if __name__ == "__main__":
    sys.exit(command.main(["together", *sys.argv[1:]]))
