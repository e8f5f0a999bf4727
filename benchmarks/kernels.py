"""Matrix products of this package beside ggml's, by type and shape, and the speed of models with them."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import cyllama
from benchmarks import command, limits, show
from benchmarks.measure import Figures, Missing, Rounds, Spread, figures_of, in_turn, python, spell, threads
from benchmarks.random_model import quantized, read_size
from benchmarks.variants import BASE, names, runs_here, setting

TITLE = "Matrix products, against ggml's"
OURS, UPSTREAM, LIMITS = "cyllama", "upstream", "limits"
TYPES = ("q4_K", "q5_K", "q6_K", "iq4_xs", "q4_0", "q5_0", "q8_0", "q3_K")
MODELS = ("Q4_K_M", "Q4_0", "Q6_K", "Q8_0", "Q5_K_M")
TESTS = ("prompt", "generation")
INSTRUCTIONS = ("avx2", "vnni", "amx")  # the last that a processor has is the fastest


def measure(rounds: Rounds) -> Figures:
    """Measure AVX2 and the best variant, with both kinds of kernels in turn."""
    best = cyllama.build_info()["cpu"]["variant"]
    usable = [name for name in names() if name in (BASE, best) and runs_here(name)]
    if not usable:
        raise Missing("no CPU variant of this build runs on this machine")
    shapes = "256x512" if rounds.quick else "2048x2048"
    rows = "1,4" if rounds.quick else "1,8,256"
    found, models = {}, {}
    for name in usable:
        words = python("multiply_once", name, "--types", ",".join(TYPES), "--shapes", shapes, "--rows", rows)
        found[name] = pairs(rounds, name, words)
        models[name] = {kind: pairs(rounds, name, loop(kind, rounds)) for kind in MODELS[: rounds.pick(len(MODELS), 1)]}
    return {
        "commands": [
            spell(words, {"CYLLAMA_KERNELS": "KIND"}),
            spell(loop("TYPE", rounds), setting("VARIANT") | {"CYLLAMA_KERNELS": "KIND"}),
            spell(limits.command()),
        ],
        "variants": found,
        "models": models,
        "read": {kind: read_size(kind) for kind in next(iter(models.values()))},
    }


def loop(kind: str, rounds: Rounds) -> list[str]:
    """Return the command that measures a model."""
    path = "random-TYPE.gguf" if kind == "TYPE" else quantized(kind)
    sizes = ("--prompt", rounds.pick(256, 32), "--generate", rounds.pick(32, 4))
    return python("decode_loop", *sizes, "--threads", threads(), "--model", path)


def pairs(rounds: Rounds, variant: str, words: list[str]) -> dict[str, dict[str, Spread]]:
    """Measure both kinds of kernels and the limits in turn."""
    kinds = {
        kind: functools.partial(figures_of, words, setting(variant) | {"CYLLAMA_KERNELS": kind})
        for kind in (OURS, UPSTREAM)
    }
    return in_turn(rounds.count, kinds | {LIMITS: functools.partial(figures_of, limits.command())})


def section(figures: Figures, charts: Path) -> list[str]:
    """Return the part of the page."""
    lines = [
        "Weights in the buffer type that a model gets, one thread; billions of multiplications per second of CPU time. "
        "A shape is columns x rows of the weights; 1 row of activations is generation, 256 rows are a prompt. "
        "The share is of the machine's limit: the products of bytes that one thread can do with the variant's "
        "instructions, by a small program in the same rounds. q3_K has no kernels of this package.",
        "",
        *show.commands(figures["commands"]),
    ]
    for name, found in sorted(figures["variants"].items(), key=lambda pair: pair[0] != BASE):
        usable = ["avx2"] if name == BASE else [kind for kind in INSTRUCTIONS if found[LIMITS][kind].median]
        ours, upstream, limit = found[OURS], found[UPSTREAM], found[LIMITS][usable[-1]]
        lines += [f"Variant {name}, limit with {usable[-1]} {limit}:", ""]
        lines += show.table(
            ("type", "shape", "rows", OURS, UPSTREAM, "ratio", "share"),
            [(*key.split(), ours[key], upstream[key], ours[key] / upstream[key], ours[key] / limit) for key in ours],
        )
        lines += models(name, figures["models"][name], figures["read"])
    return lines


def models(variant: str, found: dict[str, dict[str, dict[str, Spread]]], read: dict[str, Any]) -> list[str]:
    """Return the table of whole models."""
    rows = []
    for kind, runs in found.items():
        ours, upstream, memory = runs[OURS], runs[UPSTREAM], runs[LIMITS]["memory"]
        bytes_read = Spread(tuple(speed * read[kind] / 1e9 for speed in ours["generation"].values))
        parts = [(ours[test], upstream[test], ours[test] / upstream[test]) for test in TESTS]
        rows.append((kind, *parts[0], *parts[1], bytes_read / memory))
    return [
        f"Variant {variant}: a llama model of 0.66 billion random weights, a prompt of 256 tokens and 32 generated "
        "ones, tokens per second. The share is of what the memory delivers to all threads, in the same rounds:",
        "",
        *show.table(
            ("weights", *(f"{test}, {kind}" for test in TESTS for kind in (OURS, UPSTREAM, "ratio")), "share"), rows
        ),
    ]


if __name__ == "__main__":
    sys.exit(command.main(["kernels", *sys.argv[1:]]))
