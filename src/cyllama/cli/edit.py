"""``cyllama edit``: pictures changed as a text says."""

from __future__ import annotations

import argparse

from cyllama import sd
from cyllama.cli._pictures import add_generation, add_image, generate

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_image(parser, "images", "reference pictures", nargs="+")
    add_generation(parser, sd.ImageOptions, "edit-SEED.png")


def run(arguments: argparse.Namespace) -> int:
    """Make the pictures."""
    return generate(arguments, sd.edit, sd.ImageOptions, ".png", "images")
