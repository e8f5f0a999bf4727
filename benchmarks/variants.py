"""Speed of the CPU variants: the same build with each variant that this machine supports."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

from benchmarks import command, show
from benchmarks.measure import (
    Figures,
    Missing,
    Rounds,
    clean,
    digits,
    figures_of,
    in_turn,
    library_folder,
    machine,
    model,
    python,
    run,
    spell,
    threads,
)

TITLE = "CPU variants"
BASE, AMX = "haswell", "sapphirerapids"  # AVX2, and AMX
TESTS = ("prompt", "generation")


def names() -> list[str]:
    """Return the variants of this build."""
    return sorted(path.stem.split("ggml-cpu-")[-1] for path in library_folder().glob("*ggml-cpu-*.so"))


def setting(name: str) -> dict[str, str]:
    """Return the environment that selects a variant."""
    return {"CYLLAMA_CPU_VARIANT": name}


def runs_here(name: str) -> bool:
    """Return whether this machine supports the variant (otherwise ImportError is raised)."""
    code = "import cyllama\ntry:\n    cyllama.devices()\nexcept ImportError:\n    print('no')"
    return run([sys.executable, "-c", code], setting(name)).stdout.strip() != "no"


def measure(rounds: Rounds) -> Figures:
    """Measure all variants in turn."""
    n_prompt, n_generate = rounds.pick(128, 32), rounds.pick(64, 16)
    model()
    available = {name: runs_here(name) for name in names()}
    usable = [name for name, is_usable in available.items() if is_usable]
    if not usable:
        raise Missing(f"no libggml-cpu-*.so of {library_folder()} runs on this machine")
    words = python("decode_loop", "--prompt", n_prompt, "--generate", n_generate, "--threads", threads())
    found = in_turn(rounds.count, {name: functools.partial(figures_of, words, setting(name)) for name in usable})
    return {
        "n_prompt": n_prompt,
        "n_generate": n_generate,
        "commands": [spell(words, setting("VARIANT"))],
        "default": machine()["CPU variant"].split()[0] if not clean().get("CYLLAMA_CPU_VARIANT") else "",
        "unusable": [name for name in available if name not in usable],
        "variants": found,
    }


def section(figures: Figures, charts: Path) -> list[str]:
    """Return the part of the page."""
    found, default = figures["variants"], figures["default"]
    order = sorted(found, key=lambda name: found[name]["prompt"].median)
    base = found.get(BASE)
    rows = []
    for name in order:
        speeds = [found[name][test] for test in TESTS]
        ratios = [speed / base[test] if base else "" for speed, test in zip(speeds, TESTS, strict=True)]
        rows.append((f"**{name}** (default here)" if name == default else name, *speeds, *ratios))
    show.bars(
        charts / "variants.svg",
        order,
        {test: [found[name][test].median for name in order] for test in TESTS},
        "tokens/s",
    )
    head = ("variant", "prompt, tokens/s", "generation, tokens/s", f"prompt / {BASE}", f"generation / {BASE}")
    return [
        f"The same build with each variant; a prompt of {figures['n_prompt']} tokens and "
        f"{figures['n_generate']} generated ones, SmolLM2 135M (Q4_1), tokens per second.",
        "",
        *show.commands(figures["commands"]),
        *show.table(head, rows),
        *show.image(charts / "variants.svg", "Tokens per second of each CPU variant"),
        reading(figures, order),
        "",
    ]


def reading(figures: Figures, order: list[str]) -> str:
    """Return a summary of the table."""
    found, default, unusable = figures["variants"], figures["default"], figures["unusable"]
    parts = []
    if BASE in found and default in found:
        ratio = {test: digits((found[default][test] / found[BASE][test]).median) for test in TESTS}
        parts.append(
            f"The package selects `{default}` here: {ratio['prompt']} of `{BASE}` (AVX2) for prompts, "
            f"{ratio['generation']} for generation."
        )
    slowest = order[0]
    if default in found and slowest != default:
        gain = (found[default]["prompt"] / found[slowest]["prompt"]).median
        parts.append(f"A build for any x86-64 (`{slowest}`) would be {digits(gain)} times slower for prompts.")
    if AMX in found:
        gain = found[AMX]["prompt"] / found[BASE]["prompt"] if BASE in found else None
        parts.append(
            f"This processor has AMX: `{AMX}` runs" + (f" at {gain} of `{BASE}` for prompts." if gain else ".")
        )
    else:
        parts.append(f"This processor has no AMX: `{AMX}` does not run here, and its speed is not in this table.")
    others = [name for name in unusable if name != AMX]
    if others:
        parts.append(f"Also not supported by this processor: {', '.join(f'`{name}`' for name in others)}.")
    return " ".join(parts)


if __name__ == "__main__":
    sys.exit(command.main(["variants", *sys.argv[1:]]))
