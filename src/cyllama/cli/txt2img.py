"""``cyllama txt2img``: pictures from a text."""

from __future__ import annotations

import argparse

from cyllama import sd
from cyllama.cli._pictures import add_generation, generate

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_generation(parser, sd.ImageOptions, "txt2img-SEED.png")


def run(arguments: argparse.Namespace) -> int:
    """Make the pictures."""
    return generate(arguments, sd.txt2img, sd.ImageOptions, ".png")
