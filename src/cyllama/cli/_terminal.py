"""Images on a terminal with 24-bit colours: two pixels in each character."""

from __future__ import annotations

import os
import shutil
from typing import TextIO

import numpy as np
from PIL import Image

__all__ = ["Preview", "image_lines"]

UPPER_HALF = "\N{UPPER HALF BLOCK}"
MAX_COLUMNS = 64


def image_lines(image: Image.Image, columns: int) -> list[str]:
    """Return the lines of an image that is `columns` characters wide."""
    rows = max(1, round(image.height * columns / image.width / 2))
    small = np.asarray(image.convert("RGB").resize((columns, 2 * rows), Image.Resampling.BOX))
    lines = []
    for above, below in zip(small[::2].tolist(), small[1::2].tolist(), strict=True):
        cells = (
            f"\x1b[38;2;{r};{g};{b}m\x1b[48;2;{red};{green};{blue}m{UPPER_HALF}"
            for (r, g, b), (red, green, blue) in zip(above, below, strict=True)
        )
        lines.append("".join(cells) + "\x1b[0m")
    return lines


class Preview:
    """A preview on a terminal; each image replaces the previous one.

    Raises
    ------
    ValueError
        The stream is not a terminal with colours.
    """

    def __init__(self, out: TextIO) -> None:
        if not out.isatty() or os.environ.get("TERM") == "dumb" or "NO_COLOR" in os.environ:
            raise ValueError("--preview needs a terminal with colours")
        self._out = out
        self._lines = 0

    def show(self, image: Image.Image | list[Image.Image], step: int) -> None:
        """Show an image, or the first frame of a video."""
        first = image[0] if isinstance(image, list) else image
        columns = min(MAX_COLUMNS, shutil.get_terminal_size().columns - 1)
        lines = image_lines(first, max(1, columns))
        back = f"\x1b[{self._lines}A" if self._lines else ""
        self._out.write("\r\x1b[K" + back + "".join(f"{line}\n" for line in lines))
        self._out.flush()
        self._lines = len(lines)
