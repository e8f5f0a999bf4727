"""Colours of messages, on terminals only."""

from __future__ import annotations

import os
import re

TYPE_CHECKING = False  # importing typing takes long
if TYPE_CHECKING:
    from typing import TextIO

__all__ = ["bad", "good", "has_colours", "headings", "warn"]

HEADING = re.compile(r"^(\S[^\n]*:)$|^(usage:)", re.MULTILINE)
RESET = "\x1b[0m"


def has_colours(out: TextIO) -> bool:
    """Return whether a stream is a terminal with colours; the variable ``NO_COLOR`` turns them off."""
    return out.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")


def bad(text: str, out: TextIO) -> str:
    """Return a text in red."""
    return _coloured(text, "31", out)


def warn(text: str, out: TextIO) -> str:
    """Return a text in yellow."""
    return _coloured(text, "33", out)


def good(text: str, out: TextIO) -> str:
    """Return a text in green."""
    return _coloured(text, "32", out)


def headings(text: str, out: TextIO) -> str:
    """Return a help text with bold headings."""
    if not has_colours(out):
        return text
    return HEADING.sub(lambda found: f"\x1b[1m{found[0]}{RESET}", text)


def _coloured(text: str, code: str, out: TextIO) -> str:
    return f"\x1b[{code}m{text}{RESET}" if has_colours(out) else text
