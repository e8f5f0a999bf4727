"""``cyllama tokenize``: tokenize a text, or detokenize tokens."""

from __future__ import annotations

import argparse
import json
import sys

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("text", nargs="?", help="the text; default: the standard input")
    parser.add_argument("-m", "--model", required=True, help="a GGUF file, or a name of `cyllama models list`")
    parser.add_argument("--no-special", action="store_true", help="do not add BOS and EOS tokens")
    parser.add_argument("--plain", action="store_true", help="treat special tokens in the text as plain text")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--ids", action="store_true", help="print token IDs only, as a JSON list")
    shown.add_argument("--count", action="store_true", help="print the number of tokens")
    shown.add_argument("--detokenize", action="store_true", help="the text is a list of token IDs: print their text")


def run(arguments: argparse.Namespace) -> int:
    """Print the tokens."""
    from cyllama import models
    from cyllama.llama import LlamaModel, LlamaModelParams

    text = sys.stdin.read() if arguments.text is None else arguments.text
    path = models.resolve(arguments.model)
    with models.load_errors(path, "llama"):
        loaded = LlamaModel(path, LlamaModelParams(vocab_only=True))
    with loaded as model:
        vocab = model.vocab
        if arguments.detokenize:
            tokens = json.loads(text if text.lstrip().startswith("[") else f"[{','.join(text.split())}]")
            print(vocab.detokenize(tokens, False, True))
            return 0
        tokens = vocab.tokenize(text, not arguments.no_special, not arguments.plain)
        if arguments.count:
            print(len(tokens))
        elif arguments.ids:
            print(json.dumps(tokens))
        else:
            for token in tokens:
                piece = vocab.token_to_bytes(token, 0, True).decode("utf-8", "backslashreplace")
                print(f"{token:6} {json.dumps(piece, ensure_ascii=False)}")
    return 0
