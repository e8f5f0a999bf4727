"""``cyllama rerank``: rank texts by relevance to a query."""

from __future__ import annotations

import argparse
import sys

from cyllama.cli._language import add_model, load
from cyllama.cli._parser import CommandParser

__all__ = ["add_arguments", "run"]


def add_arguments(parser: CommandParser) -> None:
    """Declare the arguments."""
    parser.add_argument("query", help="the query")
    parser.add_argument("document", nargs="*", help="texts to rank; default: the lines of the standard input")
    parser.add_argument("--top", type=int, metavar="N", help="print the N best texts only")
    add_model(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print scores and texts, the best first."""
    documents = arguments.document or [line.rstrip("\n") for line in sys.stdin]
    with load(arguments, reranking=True) as llm:
        for row in llm.rerank(arguments.query, documents, top_n=arguments.top):
            print(f"{row.relevance_score:.4f}\t{documents[row.index]}")
    return 0
