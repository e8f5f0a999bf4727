"""``cyllama pull``: download models, and print their paths."""

from __future__ import annotations

import argparse

from cyllama import models

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "names", nargs="+", metavar="NAME",
        help="a name of `cyllama models list` or of Whisper's models, hf:org/repo:QUANTIZATION, or hf:org/repo/file",
    )  # fmt: skip
    parser.add_argument("--verify", action="store_true", help="check the hash of files that are in the cache")


def run(arguments: argparse.Namespace) -> int:
    """Download the models, with the projectors of multimodal ones."""
    for name in arguments.names:
        found = models.check(name)
        print(found if not isinstance(found, str) else models.get(found, verify=arguments.verify))
        extra = models.projector(name)
        if extra is not None:
            print(extra)
    return 0
