"""Matrix products of this package beside ggml's, by type and shape."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

from benchmarks import command, show
from benchmarks.measure import Figures, Missing, Rounds, Spread, figures_of, in_turn, python, spell
from benchmarks.variants import BASE, names, runs_here, setting

TITLE = "Matrix products, against ggml's"
OURS, UPSTREAM = "cyllama", "upstream"
TYPES = ("q4_K", "q6_K", "q4_0", "q5_0", "q8_0", "q5_K")


def measure(rounds: Rounds) -> Figures:
    """Measure AVX2 and the best variant, with both kinds of kernels in turn."""
    usable = [name for name in names() if runs_here(name)]
    if not usable:
        raise Missing("no CPU variant of this build runs on this machine")
    shapes = "256x512" if rounds.quick else "2048x2048,2048x8192,8192x2048"
    rows = "1,4" if rounds.quick else "1,4,256"
    found = {}
    for name in usable:
        words = python("multiply_once", name, "--types", ",".join(TYPES), "--shapes", shapes, "--rows", rows)
        runs = {
            kind: functools.partial(figures_of, words, setting(name) | {"CYLLAMA_KERNELS": kind})
            for kind in (OURS, UPSTREAM)
        }
        found[name] = in_turn(rounds.count, runs)
    return {"command": spell(words, {"CYLLAMA_KERNELS": "KIND"}), "variants": found}


def section(figures: Figures, charts: Path) -> list[str]:
    """Return the part of the page."""
    lines = [
        "Weights in the buffer type that a model gets, one thread; billions of multiplications per second of CPU time. "
        "A shape is columns x rows of the weights; 1 row of activations is generation, 256 rows are a prompt. "
        "Types without kernels of this package have a ratio of about 1.",
        "",
        *show.commands([figures["command"]]),
    ]
    for name, found in sorted(figures["variants"].items(), key=lambda pair: pair[0] != BASE):
        ours: dict[str, Spread] = found[OURS]
        upstream: dict[str, Spread] = found[UPSTREAM]
        lines += [f"Variant {name}:", ""]
        lines += show.table(
            ("type", "shape", "rows", OURS, UPSTREAM, "ratio"),
            [(*key.split(), ours[key], upstream[key], ours[key] / upstream[key]) for key in ours],
        )
    return lines


if __name__ == "__main__":
    sys.exit(command.main(["kernels", *sys.argv[1:]]))
