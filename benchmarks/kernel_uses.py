"""Chats, drafts, transcriptions and images with this package's kernels and with ggml's."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

from benchmarks import command, show
from benchmarks import measure as measuring
from benchmarks.measure import Figures, Rounds, figures_of, in_turn, model, python, spell, threads
from benchmarks.serving import weights
from benchmarks.transcription import sounds

TITLE = "Matrix products in use"
KINDS = ("cyllama", "upstream")
# What a figure of each use counts; the first is better if it is higher.
UNITS = {"together": "tokens/s", "drafted": "tokens/s", "transcribe": "s", "step": "s / step"}


def uses(rounds: Rounds) -> dict[str, list[str]]:
    """Return the commands by name."""
    chats, tokens = rounds.pick(8, 2), rounds.pick(64, 8)
    found = {
        f"{chats} chats together, {kind}": python(
            "chat_load", "cyllama", weights(kind), "--chats", chats, "--tokens", tokens, "--threads", threads()
        )
        for kind in ("Q4_0", "Q4_K_M", "Q8_0")
    }
    found["drafts of a Q4_0 model for Q8_0"] = python(
        "draft_once", weights("Q8_0"), weights("Q4_0"), "--tokens", rounds.pick(128, 8), "--threads", threads()
    )
    recordings = sounds()
    speech = measuring.quantized("tiny.en", "q8_0")
    for name, batch in (("11 s", 1), ("10 min", 4))[: rounds.pick(2, 1)]:
        found[f"Whisper tiny.en q8_0, {name}, batch {batch}"] = python(
            "transcribe_once", "cyllama", speech, recordings[name], "--batch", batch, "--threads", threads()
        )
    side, steps = rounds.pick(512, 128), rounds.pick(4, 1)
    for kind in ("f16", "q8_0", "q4_0"):
        found[f"tiny-flux-random {kind}, {side} pixels"] = python(
            *("generate_once", "cyllama", model("tiny-flux-random"), "--side", side, "--steps", steps),
            *("--threads", threads(), "--type", kind),
        )
    return found


def measure(rounds: Rounds) -> Figures:
    """Measure each use with both kinds of kernels in turn."""
    found = {}
    commands = []
    for name, words in uses(rounds).items():
        commands.append(spell(words, {"CYLLAMA_KERNELS": "KIND"}))
        found[name] = in_turn(
            rounds.count,
            {kind: functools.partial(numbers_of, words, {"CYLLAMA_KERNELS": kind}) for kind in KINDS},
        )
    return {"commands": commands, "uses": found}


def numbers_of(words: list[str], environment: dict[str, str]) -> dict[str, float]:
    """Return the figures of a process that has a unit."""
    return {name: value for name, value in figures_of(words, environment).items() if name in UNITS}


def section(figures: Figures, charts: Path) -> list[str]:
    """Return the part of the page."""
    rows = []
    for name, runs in figures["uses"].items():
        ours, upstream = (runs[kind] for kind in KINDS)
        for figure in ours:
            is_speed = UNITS[figure] == "tokens/s"
            ratio = ours[figure] / upstream[figure] if is_speed else upstream[figure] / ours[figure]
            rows.append((name, UNITS[figure], ours[figure], upstream[figure], ratio))
    return [
        "SmolLM2 135M, Whisper and a small FLUX with random weights. The ratio is the gain in speed.",
        "",
        *show.commands(figures["commands"]),
        *show.table(("", "unit", *KINDS, "gain"), rows),
    ]


if __name__ == "__main__":
    sys.exit(command.main(["kernel_uses", *sys.argv[1:]]))
