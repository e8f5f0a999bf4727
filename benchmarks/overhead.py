"""Overhead of a call: microseconds of cheap calls, and a decode compared with llama-bench."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks import command, generation, show
from benchmarks.measure import TINY_MODEL, Figures, Rounds, Spread, digits, figures_of, in_turn, model, python, spell

TITLE = "Call overhead"
ABOUT = {
    "ctx.n_ctx()": "one number of C",
    "batch.set_batch([token], position)": "fill a batch of one token",
    "vocab.token_to_bytes(token)": "one token",
    "vocab.tokenize(text)": "62 characters",
    "ctx.get_logits_ith(-1)": "a copy of 32,000 floats",
    "sampler.sample(ctx, -1)": "greedy among 32,000 tokens",
}
STEP = ("batch.set_batch([token], position)", "sampler.sample(ctx, -1)", "vocab.token_to_bytes(token)")


def measure(rounds: Rounds) -> Figures:
    """Measure the calls in one process, and llama-bench, in turn."""
    seconds = rounds.pick(5, 1) / 10
    repetitions = rounds.pick(20, 3)
    ours = python("overhead_calls", seconds, repetitions)
    theirs = generation.native("generation", 128, name=TINY_MODEL, n_threads=1, repetitions=repetitions)
    model(TINY_MODEL)
    found = in_turn(
        rounds.count,
        {
            "ours": lambda: figures_of(ours),
            "native": lambda: {"decode": 1e6 / generation.native_speed(theirs)},
        },
    )
    return {"commands": [spell(ours), spell(theirs)], "ours": found["ours"], "native": found["native"]["decode"]}


def section(figures: Figures, charts: Path) -> list[str]:
    """Return the part of the page."""
    ours: dict[str, Spread] = figures["ours"]
    native: Spread = figures["native"]
    extra = ours["decode"] - native
    calls = [(f"`{name}`", about, ours[name]) for name, about in ABOUT.items()]
    show.bars(
        charts / "overhead.svg",
        ["set_batch() and decode()", *(name.split("(")[0] for name in ABOUT)],
        {"microseconds": [ours["decode"].median, *(ours[name].median for name in ABOUT)]},
        "microseconds per call",
    )
    step = sum(ours[name].median for name in STEP)
    return [
        "A model of 3 MB with random weights, on one thread, to keep the engine's time small. Microseconds.",
        "",
        *show.commands(figures["commands"]),
        *show.table(("call", "what it does", "microseconds"), calls),
        *show.table(
            ("", "cyllama", "llama-bench", "ratio of the times", "difference"),
            [("one token decoded", ours["decode"], native, ours["decode"] / native, extra)],
        ),
        *show.image(charts / "overhead.svg", "Microseconds per call"),
        f"Filling the batch, sampling the token and detokenizing it take about {digits(step)} microseconds of a "
        f"Python loop for each generated token, of which sampling, nearly all in llama.cpp, is "
        f"{digits(ours['sampler.sample(ctx, -1)'].median)}. Decoding differs by {digits(extra.median)} microseconds "
        "from the native program. A token of SmolLM2 135M takes thousands.",
        "",
    ]


if __name__ == "__main__":
    sys.exit(command.main(["overhead", *sys.argv[1:]]))
