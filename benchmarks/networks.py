"""The networks of Stable Diffusion 1.5, with random weights: seconds of the UNet and the VAE against diffusers."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

from benchmarks import command, show
from benchmarks.measure import RESULTS, ROOT, Figures, Rounds, figures_of, in_turn, peer, run, spell, threads

TITLE = "Networks of Stable Diffusion 1.5, against diffusers"
PACKAGES = ("torch==2.13.0", "diffusers==0.42.1", "transformers==5.24.0", "numpy")
OURS = ("f16", "q8_0", "q4_K")
THEIRS = ("f32", "bf16")
BEFORE = "cyllama, ggml's kernels,"
SIDES = (256, 512)
ONCE = str(ROOT / "benchmarks" / "networks_once.py")


def pipeline(interpreter: str) -> str:
    """Return the folder of the networks, written on first use."""
    folder = RESULTS / "random-sd15"
    if not (folder / "model_index.json").exists():
        run([interpreter, "-P", ONCE, "write", str(folder)])
    return str(folder)


def measure(rounds: Rounds) -> Figures:
    """Measure each type of weights in turn."""
    other = peer("networks", *PACKAGES)
    folder = pipeline(other)
    found, commands = {}, []
    for side in SIDES[: rounds.pick(2, 1)]:
        sizes = ("--side", str(side), "--threads", str(threads()), "--steps", str(rounds.pick(3, 1)))
        words = {
            f"{name} {kind}": [sys.executable, "-P", ONCE, "cyllama", folder, *sizes, "--type", kind]
            for kind in OURS[: len(OURS) if side == SIDES[0] else 1]
            for name in ("cyllama", BEFORE)
        }
        for kind in THEIRS:
            words[f"diffusers {kind}"] = [other, "-P", ONCE, "diffusers", folder, *sizes, "--type", kind]
        settings = {name: {"CYLLAMA_KERNELS": "upstream"} if name.startswith(BEFORE) else {} for name in words}
        commands += [spell(line, settings[name]) for name, line in words.items()]
        found[str(side)] = in_turn(
            rounds.count,
            {name: functools.partial(figures_of, line, settings[name]) for name, line in words.items()},
        )
    return {"commands": commands, "sides": found}


def section(figures: Figures, charts: Path) -> list[str]:
    """Return the part of the page."""
    rows = []
    for side, found in figures["sides"].items():
        for name, runs in found.items():
            for figure, value in runs.items():
                f32, bf16 = (found[f"diffusers {kind}"][figure] for kind in THEIRS)
                rows.append((f"{figure}, {side} pixels", name, value, value / f32, value / bf16))
    rows.sort(key=lambda row: row[0])
    return [
        "One evaluation of the UNet with one prompt, and decoding of one image, in seconds. The weights are random; "
        "the shapes are those of Stable Diffusion 1.5. 16-bit floats of diffusers (bf16) use AMX where the processor "
        "has it.",
        "",
        *show.commands(figures["commands"]),
        *show.table(("", "package", "seconds", "time / diffusers f32", "time / diffusers bf16"), rows),
    ]


if __name__ == "__main__":
    sys.exit(command.main(["networks", *sys.argv[1:]]))
