"""``cyllama perplexity``: compute the perplexity of a language model on a text."""

from __future__ import annotations

import argparse
import sys

from cyllama._paths import expanded

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("-m", "--model", required=True, help="a GGUF file, or a name of `cyllama models list`")
    parser.add_argument("-f", "--file", type=expanded, help="text file; default: the standard input")
    parser.add_argument(
        "-c", "--ctx-size", type=int, default=512, metavar="N", help="context size of a chunk, in tokens (512)"
    )
    parser.add_argument(
        "-b", "--batch-size", type=int, metavar="N", help="logical batch size; default: the context size"
    )
    parser.add_argument("-t", "--threads", type=int, metavar="N", help="threads; default: the thread budget")
    parser.add_argument("--chunks", type=int, metavar="N", help="maximum number of chunks; default: all")


def run(arguments: argparse.Namespace) -> int:
    """Print the perplexity; show it after each chunk on a terminal."""
    from cyllama.llama import perplexity

    text = sys.stdin.read() if arguments.file is None else arguments.file.read_text(encoding="utf-8")

    def show(done: int, total: int, value: float) -> None:
        if sys.stderr.isatty():
            print(f"\r[{done}/{total}] {value:.4f}", end="", file=sys.stderr, flush=True)

    found = perplexity(
        arguments.model,
        text,
        n_ctx=arguments.ctx_size,
        n_batch=arguments.batch_size,
        n_threads=arguments.threads,
        max_chunks=arguments.chunks,
        on_chunk=show,
    )
    if sys.stderr.isatty():
        print(file=sys.stderr)
    print(f"perplexity {found.value:.4f} ± {found.error:.5f} ({found.n_chunks} chunks, {found.n_tokens} tokens)")
    return 0
