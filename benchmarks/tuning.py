"""Options of a language model beside the defaults: flash attention, the type of the KV cache, batch sizes, weights."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path

from benchmarks import command, show
from benchmarks.measure import Figures, Rounds, in_turn, run, spell, threads
from benchmarks.serving import CARRIED, weights

TITLE = "Tuning"
DEFAULT = "defaults"
OPTIONS: dict[str, tuple[str, ...]] = {
    DEFAULT: (),
    "`flash_attn=False`": ("-fa", "off"),
    "`cache_type_k`, `cache_type_v` of `q8_0`": ("-ctk", "q8_0", "-ctv", "q8_0"),
    "`n_ubatch=128`": ("-ub", "128"),
    "`n_ubatch=32`": ("-ub", "32"),
    "one thread": ("-t", "1"),
}
TYPES = ("Q4_0", "Q8_0", "F16")
BEST_OF = 2  # runs for each value


def bench(path: str, options: tuple[str, ...], rounds: Rounds) -> list[str]:
    """Return the command of one measurement."""
    sizes = ["-p", str(rounds.pick(512, 64)), "-n", str(rounds.pick(32, 8)), "-d", str(rounds.pick(2048, 128))]
    common = ["-t", str(threads()), *sizes, "-r", "1", "--json"]  # of an option that is given twice, the last counts
    return [sys.executable, "-m", "cyllama", "bench", "-m", path, *common, *options]


def speeds(words: list[str]) -> dict[str, float]:
    """Return tokens per second of the prompt and of generation."""
    prompt, generation = (float(row["tokens_per_second"]) for row in json.loads(run(words).stdout))
    return {"prompt": prompt, "generation": generation}


def measure(rounds: Rounds) -> Figures:
    """Measure all settings in turn."""
    commands = {name: bench(weights(CARRIED), options, rounds) for name, options in OPTIONS.items()}
    commands |= {f"weights of {kind}": bench(weights(kind), (), rounds) for kind in TYPES}
    runs = {name: functools.partial(speeds, words) for name, words in commands.items()}
    return {
        "command": spell(commands[DEFAULT]),
        "options": {name: " ".join(options) for name, options in OPTIONS.items()},
        "speeds": in_turn(rounds.count, runs, best_of=rounds.pick(BEST_OF, 1)),
    }


def section(figures: Figures, charts: Path) -> list[str]:
    """Return the part of the page."""
    base = figures["speeds"][DEFAULT]
    rows = [
        (name, row["prompt"], row["generation"], row["prompt"] / base["prompt"], row["generation"] / base["generation"])
        for name, row in figures["speeds"].items()
    ]
    return [
        f"SmolLM2 135M ({CARRIED}), tokens per second after 2,048 tokens: a prompt of 512 tokens, then 32 generated "
        f"ones. Each value is the best of {BEST_OF} runs. The other settings add these flags: "
        + ", ".join(f"`{flags}`" for flags in figures["options"].values() if flags)
        + ".",
        "",
        *show.commands([figures["command"]]),
        *show.table(("", "prompt", "generation", "prompt / defaults", "generation / defaults"), rows),
    ]


if __name__ == "__main__":
    sys.exit(command.main(["tuning", *sys.argv[1:]]))
