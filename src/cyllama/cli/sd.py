"""``cyllama sd``: what a picture or a diffusion model is."""

from __future__ import annotations

import argparse
import dataclasses
import json
from typing import Any

from cyllama import models, sd
from cyllama.errors import MediaError

__all__ = ["add_arguments", "run"]

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sub-commands."""
    commands = parser.add_subparsers(dest="command", required=True, metavar="info")
    info = commands.add_parser("info", help="the parameters of a picture, or the family of a model")
    info.add_argument("file", help="picture, or a model: its name, its file, or a folder of the diffusers layout")
    info.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print what the file says."""
    found = _picture(arguments.file) if arguments.file.casefold().endswith(PICTURES) else _model(arguments.file)
    if arguments.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        width = max(map(len, found)) + 1
        for name, value in found.items():
            print(f"{name + ':':{width}} {value}")
    return 0


def _picture(path: str) -> dict[str, Any]:
    text = sd.read_parameters(path)
    if text is None:
        raise MediaError(f"{path} carries no parameters")
    return sd.parse_infotext(text)


def _model(path: str) -> dict[str, Any]:
    family = sd.detect(models.resolve(path))
    if family is None:
        raise ValueError(f"{path} is no diffusion model that can be told by its header")
    values = dataclasses.asdict(family)
    return {"family": values.pop("name"), **{name: value for name, value in values.items() if value not in (None, "")}}
