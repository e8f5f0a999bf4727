"""Run ``cyllama demo``, and check that the image shows the spoken prompt (make demo)."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
IMAGE = ROOT / "build" / "demo.png"
EXPECTED = ("white", "red", "circle")  # background, colour and shape

sys.path.insert(0, str(ROOT / "tests"))


def main() -> int:
    """Run all engines; return 1 if the image does not match the prompt."""
    from sd.reading import read

    from cyllama import cli

    code = cli.main(["demo", "--output", str(IMAGE), *sys.argv[1:]])
    if code != 0 or sys.argv[1:]:
        return code
    seen = read(np.asarray(Image.open(IMAGE).convert("RGB")))
    things = ", ".join(f"{thing.colour} {thing.shape}" for thing in seen.things)
    print(f"\nchecked: the image shows {things} on {seen.background}")
    return 0 if [(seen.background, thing.colour, thing.shape) for thing in seen.things] == [EXPECTED] else 1


if __name__ == "__main__":
    sys.exit(main())
