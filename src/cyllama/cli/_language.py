"""What the commands with a language model have in common: every option of upstream's own parser is a flag."""

from __future__ import annotations

import argparse
import logging
from typing import Any

__all__ = ["add_model", "load", "unescaped"]

# Options that a command has itself.
OWN = {
    "--model",
    "--model-draft",
    "--mmproj",
    "--media-path",
    "--lora",
    "--lora-scaled",
    "--help",
    "--version",
    "--completion-bash",
    "--cache-list",
    "--list-devices",
    "--verbose",
    "--verbosity",
}
PREFIX = "upstream:"


def add_model(parser: argparse.ArgumentParser, *, default: tuple[str, str] | None = None) -> None:
    """Declare the model and its projector, and all options of upstream's parser.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    default : (str, str), optional
        The model and the projector that are taken if none is given.
    """
    from cyllama.llama.settings import danger_of, engine_options, is_of_http, why_unread

    about = "a GGUF file, or a name of `cyllama models list`"
    if default is not None:
        about += f"; default: {default[0]} with the projector {default[1]}"
    parser.add_argument("-m", "--model", required=default is None, help=about)
    parser.add_argument("-mm", "--mmproj", help="the model's projector file for pictures and sound, or a name")
    parser.set_defaults(default_model=default)
    parser.add_argument("--draft-model", help="a small model for speculative decoding, or 'ngram'")
    parser.add_argument(
        "--lora", action="append", default=[], metavar="FILE[:WEIGHT]", help="an adapter; may be given several times"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="show what the engines log")
    group = parser.add_argument_group("options of llama.cpp")
    taken = set(parser._option_string_actions)
    for info in engine_options():
        every: Any = info["names"]
        names = [name for name in every if name not in taken]
        here = danger_of(info) is None and not is_of_http(info) and why_unread(info) is None
        if not names or OWN & set(every) or not here:
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
    from cyllama import log
    from cyllama.llama.llm import LLM

    if arguments.verbose:
        logging.basicConfig(format="%(name)s: %(message)s")
        log.set_level("debug")
    options = {
        name.removeprefix(PREFIX): value
        for name, value in vars(arguments).items()
        if name.startswith(PREFIX) and value is not None
    }
    loras = [_adapter(text) for text in arguments.lora]
    model, projector = arguments.model, arguments.mmproj
    if model is None:
        model, of_model = arguments.default_model
        projector = projector or of_model
    more = {"mmproj": projector, "draft_model": arguments.draft_model, "loras": loras, "options": options, **more}
    return LLM(model, **more)


def _adapter(text: str) -> tuple[str, float]:
    path, colon, weight = text.rpartition(":")
    try:
        return (path, float(weight)) if colon else (text, 1.0)
    except ValueError:
        return text, 1.0


def unescaped(text: str) -> str:
    r"""The text with what ``\n``, ``\t`` and their like stand for."""
    from cyllama.llama import string_process_escapes

    return string_process_escapes(text)
