"""``cyllama whisper``: convert and quantize speech models, and list languages."""

from __future__ import annotations

import argparse

__all__ = ["add_arguments", "run"]

TYPES = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sub-commands."""
    commands = parser.add_subparsers(dest="command", required=True, metavar="convert|quantize|languages")
    quantizing = commands.add_parser("quantize", help="quantize a Whisper model")
    quantizing.add_argument("model", metavar="MODEL", help="model name or file")
    quantizing.add_argument("output", metavar="OUTPUT", help="output file")
    quantizing.add_argument("-t", "--type", default="q8_0", choices=TYPES, help="quantization type (default: q8_0)")
    converting = commands.add_parser("convert", help="convert a model of CTranslate2 or safetensors")
    converting.add_argument("folder", metavar="FOLDER", help="folder with the weights and the vocabulary")
    converting.add_argument("output", metavar="OUTPUT", help="output file")
    commands.add_parser("languages", help="list the languages of Whisper")


def run(arguments: argparse.Namespace) -> int:
    """Run the sub-command."""
    from cyllama import models
    from cyllama.whisper import convert, languages, quantize

    if arguments.command == "languages":
        for code, name in languages().items():
            print(f"{code:4} {name}")
        return 0
    if arguments.command == "convert":
        print(convert(arguments.folder, arguments.output))
        return 0
    source = models.resolve(arguments.model)
    target = quantize(source, arguments.output, arguments.type)
    before, after = source.stat().st_size, target.stat().st_size
    print(f"{target}: {after / 1e6:.1f} MB, {after / before:.0%} of {before / 1e6:.1f} MB")
    return 0
