"""``cyllama upscale``: a picture enlarged by an ESRGAN network."""

from __future__ import annotations

import argparse
from pathlib import Path

from cyllama import sd
from cyllama.cli._pictures import add_tool, check_target, given

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_tool(parser, "picture", "INPUT-large.png")
    parser.add_argument("-m", "--model", help="a name of `cyllama models list`, or a file")
    parser.add_argument("--factor", type=float, help="how many times larger; default: the network's")
    parser.add_argument("--tile-size", type=int, help="side of a tile in pixels; 0: no tiles; default: 128")
    parser.add_argument("--n-threads", type=int, help="threads; default: the thread budget")
    parser.add_argument("--progress", action=argparse.BooleanOptionalAction, help="show the tiles on stderr")


def run(arguments: argparse.Namespace) -> int:
    """Enlarge the picture."""
    source = Path(arguments.input)
    target = arguments.output or source.with_name(f"{source.stem}-large.png")
    check_target(target)
    sd.upscale(source, **given(arguments, "input")).save(target)
    print(target)
    return 0
