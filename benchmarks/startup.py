"""Startup time: imports, loading a model, and a process up to its first token."""

from __future__ import annotations

import functools
import re
import sys
import time
from pathlib import Path

from benchmarks import command, show
from benchmarks.measure import (
    Figures,
    Missing,
    Rounds,
    digits,
    figures_of,
    in_turn,
    model,
    program,
    python,
    run,
    spell,
)

TITLE = "Startup"
PROMPT = "The capital of France is"
IMPORTS = {
    "python alone": "pass",
    "import numpy": "import numpy",
    "import cyllama": "import cyllama",
    "cyllama --help": "from cyllama.cli import main; main(['--help'])",
    "import cyllama.llama": "import cyllama.llama",
    "backends loaded": "import cyllama; cyllama.devices()",
}


def wall(words: list[str]) -> dict[str, float]:
    """Return milliseconds of a whole process."""
    start = time.perf_counter()
    run(words)
    return {"process": 1000 * (time.perf_counter() - start)}


def ours(words: list[str]) -> dict[str, float]:
    """Return milliseconds of the parts, and of the whole process."""
    start = time.perf_counter()
    found = figures_of(words)
    return found | {"process": 1000 * (time.perf_counter() - start)}


def native(words: list[str]) -> dict[str, float]:
    """Return milliseconds of loading as llama-simple prints them, and of the whole process."""
    start = time.perf_counter()
    text = run(words).stderr
    process = 1000 * (time.perf_counter() - start)
    match = re.search(r"load time =\s*([\d.]+) ms", text)
    if match is None:
        raise Missing("llama-simple printed no load time")
    return {"load": float(match.group(1)), "process": process}


def measure(rounds: Rounds) -> Figures:
    """Measure the imports, and the startup of cyllama and llama-simple, in turn."""
    imports = {name: [sys.executable, "-c", code] for name, code in IMPORTS.items()}
    first = python("first_token", PROMPT)
    simple = [program("llama-simple"), "-m", model(), "-n", "1", PROMPT]
    found = in_turn(
        2 * rounds.count,
        {name: functools.partial(wall, words) for name, words in imports.items()}
        | {"ours": lambda: ours(first), "native": lambda: native(simple)},
    )
    return {
        "commands": [spell(words) for words in (*imports.values(), first, simple)],
        "imports": {name: found[name]["process"] for name in IMPORTS},
        "ours": found["ours"],
        "native": found["native"],
    }


def section(figures: Figures, charts: Path) -> list[str]:
    """Return the part of the page."""
    imports, ours, native = figures["imports"], figures["ours"], figures["native"]
    bare = imports["python alone"]
    rows = [
        ("loading: model, context and first decode, by the engine's clock", ours["load"], native["load"]),
        ("the whole process, to the first token", ours["process"], native["process"]),
    ]
    show.bars(
        charts / "startup.svg",
        [*imports, "first token, cyllama", "first token, llama-simple"],
        {
            "milliseconds": [
                *(value.median for value in imports.values()),
                ours["process"].median,
                native["process"].median,
            ]
        },
        "milliseconds of the whole process",
    )
    own = {name: (value - bare).median for name, value in imports.items()}
    return [
        "Milliseconds; files in the page cache. llama-simple is the smallest native program that generates.",
        "",
        *show.commands(figures["commands"]),
        *show.table(
            ("whole process", "ms", "more than Python only"),
            [(name, value, "" if value is bare else value - bare) for name, value in imports.items()],
        ),
        *show.table(("", "cyllama", "llama-simple", "ratio"), [(*row, row[1] / row[2]) for row in rows]),
        *show.image(charts / "startup.svg", "Milliseconds from the start of a process"),
        f"`import cyllama` adds {digits(own['import cyllama'])} ms to Python's own start; with llama's extension "
        f"modules it is {digits(own['import cyllama.llama'])} ms, of which numpy is {digits(own['import numpy'])} ms. "
        f"In the process, the imports take {digits(ours['import'].median)} ms, the model "
        f"{digits(ours['model'].median)} ms, and context, prompt and first token "
        f"{digits(ours['first token'].median)} ms. llama-simple writes its log while it loads; the package, by "
        "default, does not.",
        "",
    ]


if __name__ == "__main__":
    sys.exit(command.main(["startup", *sys.argv[1:]]))
