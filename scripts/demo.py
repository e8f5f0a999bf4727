"""Run ``cyllama demo``, and check that the picture shows what was said (make demo)."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "build" / "demo.png"
SAID = ("white", "red", "circle")  # on what, and what

sys.path.insert(0, str(ROOT / "tests"))


def main() -> int:
    """Let all engines work; the exit code is 1 if the picture is another."""
    from sd.reading import read

    from cyllama import cli

    code = cli.main(["demo", "--output", str(PICTURE), *sys.argv[1:]])
    if code != 0 or sys.argv[1:]:
        return code
    seen = read(np.asarray(Image.open(PICTURE).convert("RGB")))
    things = ", ".join(f"{thing.colour} {thing.shape}" for thing in seen.things)
    print(f"\nchecked: the picture shows {things} on {seen.background}")
    return 0 if [(seen.background, thing.colour, thing.shape) for thing in seen.things] == [SAID] else 1


if __name__ == "__main__":
    sys.exit(main())
