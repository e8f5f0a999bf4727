"""Images: seconds of a step against sd-cli and stable-diffusion-cpp-python, and what images in and out cost."""

from __future__ import annotations

import contextlib
import functools
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import command, show
from benchmarks.measure import (
    RESULTS,
    ROOT,
    Figures,
    Missing,
    Rounds,
    Spread,
    figures_of,
    in_turn,
    model,
    peer,
    program,
    run,
    spell,
    threads,
)

TITLE = "Images, against sd-cli and stable-diffusion-cpp-python"
PACKAGE = "stable-diffusion-cpp-python==0.4.7"
MODEL = "tiny-flux-random"
STEPS = 10
PIXELS = 1024


def native(words: list[str]) -> dict[str, float]:
    """Return seconds of a step of sd-cli and of all that follows the loading, as it prints them."""
    text = run(words).stdout
    sampling = re.search(r"sampling completed, taking ([\d.]+)s", text)
    total = re.search(r"generate_image completed in ([\d.]+)s", text)
    if sampling is None or total is None:
        raise Missing("sd-cli printed no times")
    return {"step": float(sampling[1]) / STEPS, "total": float(total[1])}


def package(words: list[str]) -> dict[str, float]:
    """Return seconds of a step and of the call of a package."""
    found = figures_of(words)
    return {"step": found["step"], "total": found["total"]}


def measure(rounds: Rounds) -> Figures:
    """Measure all in turn, then the conversion of images."""
    path, n = model(MODEL), str(threads())
    side = str(rounds.pick(512, 128))
    once = str(ROOT / "benchmarks" / "generate_once.py")
    image = str(RESULTS / "image.png")
    arguments = [path, "--side", side, "--steps", str(STEPS), "--threads", n]
    words = {
        "cyllama": [sys.executable, "-P", once, "cyllama", *arguments],
        "sd-cli": [program("sd-cli"), "-m", path, "--taesd", path, "-p", "a red circle", "-W", side, "-H", side,
                   "-t", n, "--steps", str(STEPS), "--cfg-scale", "1", "-s", "1", "-o", image, "-v"],
    }  # fmt: skip
    with contextlib.suppress(Missing):
        words["stable-diffusion-cpp-python"] = [
            *(peer("diffusion", PACKAGE), "-P", once, "stable-diffusion-cpp-python", *arguments)
        ]
    measured = in_turn(
        rounds.count,
        {name: functools.partial(native if name == "sd-cli" else package, line) for name, line in words.items()},
    )
    return {
        "side": side,
        "commands": [spell(line) for line in words.values()],
        "speed": measured,
        "images": conversions(rounds.pick(30, 5)),
    }


def conversions(count: int) -> dict[str, Spread]:
    """Return milliseconds of one image of 1024x1024, for each type of input and output."""
    import numpy as np
    from PIL import Image

    from cyllama.media.image import to_pil, to_pixels

    pixels = np.random.default_rng(0).integers(0, 256, (PIXELS, PIXELS, 3), np.uint8)
    image = Image.fromarray(pixels)
    forms: dict[str, Callable[[], Any]] = {
        "Pillow image in": functools.partial(to_pixels, image),
        "uint8 array in": functools.partial(to_pixels, pixels),
        "channels first, uint8, in": functools.partial(to_pixels, np.ascontiguousarray(pixels.transpose(2, 0, 1))),
        "float32 array in": functools.partial(to_pixels, pixels.astype(np.float32) / 255),
        "Pillow image out": functools.partial(to_pil, pixels),
    }
    found = {}
    for name, convert in forms.items():
        convert()
        times = []
        for _ in range(count):
            start = time.perf_counter()
            convert()
            times.append((time.perf_counter() - start) * 1000)
        found[name] = Spread(tuple(times))
    return found


def section(figures: Figures, charts: Path) -> list[str]:
    """Return the part of the page."""
    side, speed = figures["side"], figures["speed"]
    wanted = speed["sd-cli"]
    lines = [
        f"{MODEL}, {side}x{side} pixels, {STEPS} euler steps, two threads: seconds of a step of the sampler, and of "
        "the whole call without the loading.",
        "",
        *show.commands(figures["commands"]),
        *show.table(
            ("", "s / step", "speed / sd-cli", "whole call, s", "speed / sd-cli"),
            [
                (name, value["step"], wanted["step"] / value["step"], value["total"], wanted["total"] / value["total"])
                for name, value in speed.items()
            ],
        ),
    ]
    if "stable-diffusion-cpp-python" not in speed:
        lines += ["stable-diffusion-cpp-python could not be built here.", ""]
    lines += [f"Images of {PIXELS}x{PIXELS} pixels between Python and the engine:", ""]
    lines += show.table(("", "ms"), list(figures["images"].items()))
    return lines


if __name__ == "__main__":
    sys.exit(command.main(["diffusion", *sys.argv[1:]]))
