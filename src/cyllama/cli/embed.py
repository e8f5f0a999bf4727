"""``cyllama embed``: compute embeddings of texts."""

from __future__ import annotations

import argparse
import json
import sys

import numpy as np

from cyllama._native.files import atomic_path
from cyllama._paths import expanded
from cyllama.cli._language import add_model, load
from cyllama.cli._parser import CommandParser

__all__ = ["add_arguments", "run"]


def add_arguments(parser: CommandParser) -> None:
    """Declare the arguments."""
    parser.add_argument("text", nargs="*", help="texts; default: the lines of the standard input")
    parser.add_argument("--no-normalize", action="store_true", help="do not normalize the embeddings to length 1")
    parser.add_argument("-o", "--output", type=expanded, help="write a NumPy file (.npy) instead of JSON lines")
    parser.add_argument("--similarity", action="store_true", help="print the cosine similarity of all pairs instead")
    add_model(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print a JSON list for each text, or write a file."""
    texts = arguments.text or [line.rstrip("\n") for line in sys.stdin]
    if not texts:
        raise ValueError("text is missing, expected arguments or lines on the standard input")
    with load(arguments, embedding=True) as llm:
        vectors = llm.embed(texts, normalize=not arguments.no_normalize)
        if isinstance(vectors, list):
            raise ValueError("pooling is none, expected --pooling mean, cls or last")
    if arguments.output is not None:
        with atomic_path(arguments.output) as temporary, open(temporary, "wb") as file:
            np.save(file, vectors)
        print(arguments.output)
    elif arguments.similarity:
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        for row in (vectors / lengths) @ (vectors / lengths).T:
            print(" ".join(f"{value:.3f}" for value in row))
    else:
        for vector in vectors:
            print(json.dumps([round(float(value), 7) for value in vector]))
    return 0
