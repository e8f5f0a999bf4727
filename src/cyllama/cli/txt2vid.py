"""``cyllama txt2vid``: a video from a text."""

from __future__ import annotations

import argparse

from cyllama import sd
from cyllama.cli._pictures import add_generation, generate

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_generation(parser, sd.VideoOptions, "txt2vid-SEED.webp")


def run(arguments: argparse.Namespace) -> int:
    """Make the video."""
    return generate(arguments, sd.txt2vid, sd.VideoOptions, ".webp")
