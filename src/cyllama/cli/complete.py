"""``cyllama complete``: continue a text."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cyllama.cli._language import add_model, load

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("prompt", nargs="?", help="the text; default: the standard input")
    parser.add_argument("-f", "--file", type=Path, help="read the text from a file")
    parser.add_argument("--max-tokens", type=int, help="tokens to write at most")
    parser.add_argument("--no-echo", action="store_true", help="do not print the prompt")
    add_model(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the text and what follows it."""
    if arguments.prompt is not None and arguments.file is not None:
        raise ValueError("prompt and --file were both given, expected one of them")
    prompt = arguments.prompt
    if prompt is None:
        prompt = sys.stdin.read() if arguments.file is None else arguments.file.read_text(encoding="utf-8")
    with load(arguments) as llm:
        if not arguments.no_echo:
            print(prompt, end="", flush=True)
        with llm.complete(prompt, max_tokens=arguments.max_tokens, stream=True) as stream:
            for part in stream:
                print(part.text, end="", flush=True)
        print()
    return 0
