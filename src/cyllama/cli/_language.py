"""What the commands with a language model have in common: every option of upstream's own parser is a flag."""

from __future__ import annotations

import argparse
from typing import Any

__all__ = ["add_model", "load"]

# Options that a command has itself, or that make no sense without a server.
OWN = {
    "--model",
    "--model-draft",
    "--lora",
    "--lora-scaled",
    "--help",
    "--version",
    "--completion-bash",
    "--host",
    "--port",
    "--path",
    "--api-prefix",
    "--api-key",
    "--api-key-file",
    "--ssl-key-file",
    "--ssl-cert-file",
    "--timeout",
    "--threads-http",
    "--slot-save-path",
    "--cors-origins",
    "--reuse-port",
}
PREFIX = "upstream:"


def add_model(parser: argparse.ArgumentParser) -> None:
    """Declare the model, and all options of upstream's parser."""
    from cyllama.llama.settings import danger_of, engine_options

    parser.add_argument("-m", "--model", required=True, help="a GGUF file, or a name of `cyllama models list`")
    parser.add_argument("--draft-model", help="a small model for speculative decoding, or 'ngram'")
    parser.add_argument(
        "--lora", action="append", default=[], metavar="FILE[:WEIGHT]", help="an adapter; may be given several times"
    )
    group = parser.add_argument_group("options of llama.cpp")
    taken = set(parser._option_string_actions)
    for info in engine_options():
        every: Any = info["names"]
        names = [name for name in every if name not in taken]
        if not names or OWN & set(every) or danger_of(info) is not None:
            continue
        long = max(names, key=len)
        more: dict[str, Any] = {"dest": PREFIX + long, "default": None, "help": _plain(str(info["help"]))}
        if info["values"] == 0:
            more["action"] = "store_true"
        else:
            more["metavar"] = "VALUE" if info["values"] == 1 else ("NAME", "VALUE")
            more["nargs"] = None if info["values"] == 1 else 2
        group.add_argument(*names, **more)
        taken.update(names)


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("%", "%%")


def load(arguments: argparse.Namespace, **more: Any) -> Any:
    """Load the model that the arguments say.

    Returns
    -------
    LLM
    """
    from cyllama.llama.llm import LLM

    options = {
        name.removeprefix(PREFIX): value
        for name, value in vars(arguments).items()
        if name.startswith(PREFIX) and value is not None
    }
    loras = [_adapter(text) for text in arguments.lora]
    return LLM(arguments.model, draft_model=arguments.draft_model, loras=loras, options=options, **more)


def _adapter(text: str) -> tuple[str, float]:
    path, colon, weight = text.rpartition(":")
    try:
        return (path, float(weight)) if colon else (text, 1.0)
    except ValueError:
        return text, 1.0
