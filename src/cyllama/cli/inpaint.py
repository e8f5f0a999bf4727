"""``cyllama inpaint``: a part of a picture painted anew."""

from __future__ import annotations

import argparse

from cyllama import sd
from cyllama.cli._pictures import add_generation, add_image, generate

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_image(parser, "image", "picture to start from")
    add_image(parser, "mask_image", "of the same size: white where to paint")
    add_generation(parser, sd.ImageOptions, "inpaint-SEED.png")


def run(arguments: argparse.Namespace) -> int:
    """Make the pictures."""
    return generate(arguments, sd.inpaint, sd.ImageOptions, ".png", "image", "mask_image")
