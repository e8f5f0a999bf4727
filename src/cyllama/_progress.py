"""Progress lines on a terminal."""

from __future__ import annotations

import time
from typing import TextIO

__all__ = ["ByteProgress", "ProgressLine", "StepProgress"]

BAR_WIDTH = 24  # characters
MIN_INTERVAL = 0.1  # seconds between two updates of a download


class ProgressLine:
    """A line of text on a terminal that each update replaces.

    Parameters
    ----------
    out : text file
        Usually ``sys.stderr``.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._width = 0

    def show(self, text: str) -> None:
        """Replace the line by `text`."""
        self._out.write(f"\r{text:<{self._width}}")
        self._out.flush()
        self._width = len(text)

    def close(self, *, keep: bool = False) -> None:
        """End the line: erase it, or keep it and go to the next one."""
        if self._width:
            self._out.write("\n" if keep else f"\r{'':{self._width}}\r")
            self._out.flush()
            self._width = 0


class StepProgress(ProgressLine):
    """A progress bar with the number of steps; a callback ``(step, total, seconds for each step)``."""

    def __call__(self, step: int, total: int, seconds: float) -> None:
        """Show that `step` of `total` steps are done."""
        done = BAR_WIDTH * step // total if total else BAR_WIDTH
        text = f"{'#' * done}{'.' * (BAR_WIDTH - done)} {step}/{total}"
        self.show(text + (f"  {seconds:.2f} s/step" if seconds > 0 else ""))


class ByteProgress(ProgressLine):
    """The progress of a download, at most ten updates a second; a callback ``(bytes done, bytes in total)``.

    Parameters
    ----------
    out : text file
    title : str
        The name of the file.
    """

    def __init__(self, out: TextIO, title: str) -> None:
        super().__init__(out)
        self._title = title
        self._next = 0.0

    def __call__(self, done: int, total: int) -> None:
        """Show that `done` of `total` bytes are there; a total of 0 is unknown."""
        now = time.monotonic()
        if now < self._next and done != total:
            return
        self._next = now + MIN_INTERVAL
        amount = f"{100 * done // total:3d}% of {total / 1e6:,.1f} MB" if total else f"{done / 1e6:,.1f} MB"
        self.show(f"{self._title}: {amount}")
