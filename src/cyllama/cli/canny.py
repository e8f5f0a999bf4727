"""``cyllama canny``: the edges of a picture, for ControlNet."""

from __future__ import annotations

import argparse
from pathlib import Path

from cyllama import sd
from cyllama.cli._pictures import add_tool, check_target, given

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_tool(parser, "picture", "INPUT-edges.png")
    parser.add_argument("--high-threshold", type=float, help="strength of an edge, 0 to 1; default: 0.08")
    parser.add_argument("--low-threshold", type=float, help="strength of what continues it, as a part of that")
    parser.add_argument("--weak", type=float, help="brightness of weak edges, 0 to 1; default: 0.8")
    parser.add_argument("--strong", type=float, help="brightness of strong edges, 0 to 1; default: 1")
    parser.add_argument("--inverse", action="store_true", default=None, help="dark edges on a bright ground")


def run(arguments: argparse.Namespace) -> int:
    """Find the edges."""
    source = Path(arguments.input)
    target = arguments.output or source.with_name(f"{source.stem}-edges.png")
    check_target(target)
    sd.canny(source, **given(arguments, "input")).save(target)
    print(target)
    return 0
