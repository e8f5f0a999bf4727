"""``cyllama embed``: vectors of texts."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from cyllama._native.files import atomic_path
from cyllama.cli._language import add_model, load

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("text", nargs="*", help="the texts; default: the lines of the standard input")
    parser.add_argument("--no-normalize", action="store_true", help="leave the vectors as long as the model makes them")
    parser.add_argument("-o", "--output", type=Path, help="write a NumPy file (.npy) instead of JSON lines")
    parser.add_argument("--similarity", action="store_true", help="print the cosines of all pairs instead")
    add_model(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print one JSON list for each text, or write them all."""
    texts = arguments.text or [line.rstrip("\n") for line in sys.stdin]
    if not texts:
        raise ValueError("there is no text, neither as an argument nor on the standard input")
    with load(arguments, embedding=True) as llm:
        vectors = llm.embed(texts, normalize=not arguments.no_normalize)
        if isinstance(vectors, list):
            raise ValueError("the model gives a vector for each token; choose --pooling mean, cls or last")
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
