"""``cyllama sd``: information about images and diffusion models."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import Any

from cyllama import models, sd
from cyllama.errors import MediaError

__all__ = ["add_arguments", "run"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sub-commands."""
    commands = parser.add_subparsers(dest="command", required=True, metavar="info")
    info = commands.add_parser("info", help="print the parameters of an image, or the family of a model")
    info.add_argument("file", help="an image, or a model: its name, its file, or a folder of the diffusers layout")
    info.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the information."""
    is_image = arguments.file.casefold().endswith(IMAGE_SUFFIXES)
    found = (_image_info if is_image else _model_info)(arguments.file)
    if arguments.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        width = max(map(len, found)) + 1
        for name, value in found.items():
            print(f"{name + ':':{width}} {value}")
    return 0


def _image_info(path: str) -> dict[str, Any]:
    text = sd.read_parameters(path)
    if text is None:
        raise MediaError(f"{path} has no parameters")
    return sd.parse_infotext(text)


def _model_info(path: str) -> dict[str, Any]:
    family = sd.detect(models.resolve(path))
    if family is None:
        raise ValueError(f"{path} has no header of a supported diffusion model")
    values = dataclasses.asdict(family)
    return {"family": values.pop("name"), **{name: value for name, value in values.items() if value not in (None, "")}}
