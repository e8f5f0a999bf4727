"""Time and memory of loading a model, with this package's kernels and with ggml's, mapped and read."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

from benchmarks import command, show
from benchmarks.measure import Figures, Rounds, figures_of, in_turn, python, spell
from benchmarks.random_model import quantized

TITLE = "Loading weights"
KINDS = ("cyllama", "upstream")
MODES = ("mmap", "none")
TYPES = ("Q4_K_M", "Q8_0", "Q5_K_M")


def measure(rounds: Rounds) -> Figures:
    """Measure all in turn."""
    kinds = TYPES[: rounds.pick(len(TYPES), 1)]
    runs = {
        f"{kind} {mode} {kernels}": functools.partial(
            figures_of, words(quantized(kind), mode), {"CYLLAMA_KERNELS": kernels}
        )
        for kind in kinds
        for mode in MODES
        for kernels in KINDS
    }
    return {
        "commands": [spell(words("random-TYPE.gguf", "MODE"), {"CYLLAMA_KERNELS": "KIND"})],
        "kinds": list(kinds),
        "runs": in_turn(rounds.count, runs),
    }


def words(path: str, mode: str) -> list[str]:
    """Return the command that loads a model."""
    return python("load_model_once", path, "--load-mode", mode)


def section(figures: Figures, charts: Path) -> list[str]:
    """Return the part of the page."""
    rows = []
    for kind in figures["kinds"]:
        for mode in MODES:
            ours, upstream = (figures["runs"][f"{kind} {mode} {kernels}"] for kernels in KINDS)
            for name, found in zip(KINDS, (ours, upstream), strict=True):
                rows.append((kind, mode, name, found["load"], found["cpu"], found["peak"], found["own"]))
    return [
        "A llama model of 0.66 billion random weights, from the page cache, and one token. Weights that a kernel "
        "reorders are copied; others stay mapped with `mmap`. The peak counts mapped pages of the file, which the "
        "system can take back; own memory does not.",
        "",
        *show.commands(figures["commands"]),
        *show.table(("weights", "mode", "kernels", "load, s", "CPU time, s", "peak, MiB", "own memory, MiB"), rows),
    ]


if __name__ == "__main__":
    sys.exit(command.main(["loading", *sys.argv[1:]]))
