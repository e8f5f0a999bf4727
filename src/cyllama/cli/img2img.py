"""``cyllama img2img``: pictures from a picture and a text."""

from __future__ import annotations

import argparse

from cyllama import sd
from cyllama.cli._pictures import add_generation, add_image, generate

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_image(parser, "image", "picture to start from")
    add_generation(parser, sd.ImageOptions, "img2img-SEED.png")


def run(arguments: argparse.Namespace) -> int:
    """Make the pictures."""
    return generate(arguments, sd.img2img, sd.ImageOptions, ".png", "image")
