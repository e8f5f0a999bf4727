"""This build, compared with another checkout, such as the one before an update of the engines.

CYLLAMA_BASELINE=/path/to/other/checkout python -m benchmarks engines
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

from benchmarks import show
from benchmarks.measure import (
    ROOT,
    Figures,
    Missing,
    Rounds,
    figures_of,
    in_turn,
    machine,
    model,
    python,
    run,
    spell,
    threads,
)

TITLE = "Engine update"
SPEECH = ROOT / "tests" / "data" / "recordings" / "jfk.wav"
LABELS = {
    "prompt": "prompt of 256 tokens, tokens/s",
    "generation": "generation of 128 tokens, tokens/s",
    "speech": "transcription of 11 s with tiny.en, calls/s",
    "image": "diffusion, steps/s",
}
VERSIONS = "from benchmarks.measure import machine; print(machine()['versions'])"


def baseline() -> str:
    """Return the interpreter of the other checkout."""
    folder = os.environ.get("CYLLAMA_BASELINE")
    if not folder:
        raise Missing("set CYLLAMA_BASELINE to another, built checkout")
    found = Path(folder) / ".venv" / "bin" / "python"
    if not found.exists():
        raise Missing(f"{found} is missing; build that checkout with: make")
    return str(found)


def speeds(command: list[str], name: str) -> dict[str, float]:
    """Return the figures of a program as speeds."""
    found = figures_of(command)
    if name == "text":
        return {"prompt": found["prompt"], "generation": found["generation"]}
    if name == "speech":
        return {"speech": 1 / found["transcribe"]}
    return {"image": 1 / found["step"]}


def measure(rounds: Rounds) -> Figures:
    """Measure both builds in turn."""
    other = baseline()
    side, steps = rounds.pick(256, 64), rounds.pick(4, 1)
    programs = {
        "text": python("decode_loop", "--prompt", 256, "--generate", 128, "--threads", threads()),
        "speech": python("transcribe_once", "cyllama", model("whisper-tiny.en"), SPEECH, "--threads", threads()),
        "image": python(
            "generate_once", "cyllama", model("tiny-shapes"), "--side", side, "--steps", steps, "--threads", threads()
        ),
    }
    found: Figures = {}
    for name, words in programs.items():
        both = {"now": words, "before": [other, *words[1:]]}
        run_both = {build: functools.partial(speeds, command, name) for build, command in both.items()}
        for build, figures in in_turn(rounds.count, run_both, best_of=2).items():
            found.setdefault(build, {}).update(figures)
    return {
        "commands": [spell(words) for words in programs.values()],
        "before": run([other, "-c", VERSIONS]).stdout.strip(),
        "now": machine()["versions"],
        "speeds": found,
    }


def section(figures: Figures, charts: Path) -> list[str]:
    """Return the part of the page."""
    now, before = figures["speeds"]["now"], figures["speeds"]["before"]
    rows = [(label, now[key], before[key], now[key] / before[key]) for key, label in LABELS.items() if key in now]
    show.bars(
        charts / "engines.svg",
        list(LABELS),
        {"now / before": [(now[key] / before[key]).median for key in LABELS]},
        "speed, now / before",
    )
    return [
        f"Before: {figures['before']}. Each value is the best of 2 runs.",
        "",
        *show.commands(figures["commands"]),
        *show.table(("", "now", "before", "now / before"), rows),
        *show.image(charts / "engines.svg", "Speed of this build relative to the one before"),
    ]
