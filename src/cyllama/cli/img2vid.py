"""``cyllama img2vid``: a video from its first frame and a text."""

from __future__ import annotations

import argparse

from cyllama import sd
from cyllama.cli._pictures import add_generation, add_image, generate

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_image(parser, "image", "first frame")
    add_generation(parser, sd.VideoOptions, "img2vid-SEED.webp")


def run(arguments: argparse.Namespace) -> int:
    """Make the video."""
    return generate(arguments, sd.img2vid, sd.VideoOptions, ".webp", "image")
