"""Pictures on a terminal that shows colours: two pixels in each character."""

from __future__ import annotations

import os
import shutil
from typing import Any, TextIO

import numpy as np
from PIL import Image

__all__ = ["Screen", "drawn"]

UPPER_HALF = "\N{UPPER HALF BLOCK}"
MAX_COLUMNS = 64


def drawn(picture: Image.Image, columns: int) -> list[str]:
    """The lines of a picture, `columns` wide, in 24-bit colours."""
    rows = max(1, round(picture.height * columns / picture.width / 2))
    small = np.asarray(picture.convert("RGB").resize((columns, 2 * rows), Image.Resampling.BOX))
    lines = []
    for above, below in zip(small[::2].tolist(), small[1::2].tolist(), strict=True):
        cells = (
            f"\x1b[38;2;{r};{g};{b}m\x1b[48;2;{red};{green};{blue}m{UPPER_HALF}"
            for (r, g, b), (red, green, blue) in zip(above, below, strict=True)
        )
        lines.append("".join(cells) + "\x1b[0m")
    return lines


class Screen:
    """A place on a terminal where one picture takes the other's.

    Raises
    ------
    ValueError
        It is no terminal, or one without colours.
    """

    def __init__(self, out: TextIO) -> None:
        if not out.isatty() or os.environ.get("TERM") == "dumb" or "NO_COLOR" in os.environ:
            raise ValueError("--preview needs a terminal that shows colours")
        self._out = out
        self._lines = 0

    def show(self, picture: Any, step: int) -> None:
        """Draw a picture, or the first of several."""
        first = picture[0] if isinstance(picture, list) else picture
        columns = min(MAX_COLUMNS, shutil.get_terminal_size().columns - 1)
        lines = drawn(first, max(1, columns))
        back = f"\x1b[{self._lines}A" if self._lines else ""
        self._out.write("\r\x1b[K" + back + "".join(f"{line}\n" for line in lines))
        self._out.flush()
        self._lines = len(lines)
