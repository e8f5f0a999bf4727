"""Tokens per second of the low-level API against native llama-bench, side by side."""

from __future__ import annotations

import json
import re
import statistics
import sys
from pathlib import Path

from benchmarks import command, show
from benchmarks.measure import (
    MODEL,
    ROOT,
    Figures,
    Rounds,
    digits,
    figures_of,
    in_turn,
    model,
    program,
    python,
    run,
    spell,
    threads,
)

TITLE = "Text generation, against llama-bench"
EXAMPLE = ROOT / "tests" / "simple.py"
EXAMPLE_PROMPT = "Once upon a time"
BEST_OF = 4  # runs for each value


def native(
    test: str, n_tokens: int, *, name: str = MODEL, n_threads: int | None = None, repetitions: int = 1
) -> list[str]:
    """Return the command of llama-bench for one test."""
    n_prompt, n_generate = (n_tokens, 0) if test == "prompt" else (0, n_tokens)
    sizes = ["-t", str(n_threads or threads()), "-p", str(n_prompt), "-n", str(n_generate)]
    return [program("llama-bench"), "-m", model(name), *sizes, "-r", str(repetitions), "-o", "json"]


def native_speed(words: list[str]) -> float:
    """Return tokens per second of llama-bench; the median of its repetitions."""
    out = run(words).stdout
    samples: list[float] = json.loads(out[out.index("[") :])[0]["samples_ts"]
    return statistics.median(samples)


def example_speed(words: list[str]) -> float:
    """Return the tokens per second that tests/simple.py prints."""
    return float(re.findall(r"speed: ([\d.]+) t/s", run(words).stdout)[-1])


def measure(rounds: Rounds) -> Figures:
    """Measure cyllama, llama-bench and the example in turn."""
    n_prompt, n_generate = rounds.pick(256, 64), rounds.pick(128, 24)
    model()
    ours = {
        "prompt": python("decode_loop", "--prompt", n_prompt, "--threads", threads()),
        "generation": python("decode_loop", "--generate", n_generate, "--threads", threads()),
    }
    theirs = {"prompt": native("prompt", n_prompt), "generation": native("generation", n_generate)}
    example = [sys.executable, str(EXAMPLE), EXAMPLE_PROMPT, str(n_generate)]
    found = in_turn(
        rounds.count,
        {
            "ours, prompt": lambda: figures_of(ours["prompt"]),
            "native, prompt": lambda: {"prompt": native_speed(theirs["prompt"])},
            "ours, generation": lambda: figures_of(ours["generation"]),
            "native, generation": lambda: {"generation": native_speed(theirs["generation"])},
            "example": lambda: {"generation": example_speed(example)},
        },
        best_of=rounds.pick(BEST_OF, 1),
    )
    return {
        "best_of": rounds.pick(BEST_OF, 1),
        "n_prompt": n_prompt,
        "n_generate": n_generate,
        "commands": [spell(words) for words in (*ours.values(), *theirs.values(), example)],
        "prompt": {"ours": found["ours, prompt"]["prompt"], "native": found["native, prompt"]["prompt"]},
        "generation": {
            "ours": found["ours, generation"]["generation"],
            "native": found["native, generation"]["generation"],
            "example": found["example"]["generation"],
        },
    }


def section(figures: Figures, charts: Path) -> list[str]:
    """Return the part of the page."""
    prompt, generation = figures["prompt"], figures["generation"]
    rows = [
        (f"prompt of {figures['n_prompt']} tokens", prompt["ours"], prompt["native"]),
        (f"generation of {figures['n_generate']} tokens", generation["ours"], generation["native"]),
        ("`tests/simple.py`", generation["example"], generation["native"]),
    ]
    show.bars(
        charts / "generation.svg",
        [name.replace("`", "") for name, _, _ in rows],
        {
            "cyllama (Python)": [ours.median for _, ours, _ in rows],
            "llama-bench (native)": [theirs.median for _, _, theirs in rows],
        },
        "tokens/s",
    )
    ratios = [ours / theirs for _, ours, theirs in rows]
    medians = [digits(ratio.median) for ratio in ratios]
    return [
        "SmolLM2 135M (Q4_1), tokens per second. Each run is a process; the programs run in turn, and each "
        f"value is the best of {figures['best_of']} runs, because other load can only reduce it.",
        "",
        *show.commands(figures["commands"]),
        *show.table(
            ("", "cyllama", "llama-bench", "ratio"),
            [(*row, ratio) for row, ratio in zip(rows, ratios, strict=True)],
        ),
        *show.image(charts / "generation.svg", "Tokens per second of cyllama and llama-bench"),
        f"The Python loop has {medians[1]} of the native program's speed for generation and {medians[0]} for prompts; "
        f"`tests/simple.py` at {medians[2]}. The Python loop also picks each token (greedy) and the example prints it "
        "as well; llama-bench does neither, it decodes random tokens.",
        "",
    ]


if __name__ == "__main__":
    sys.exit(command.main(["generation", *sys.argv[1:]]))
