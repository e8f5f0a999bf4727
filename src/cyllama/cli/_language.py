"""Options of the commands with a language model; each option of llama.cpp's parser is a flag."""

from __future__ import annotations

import argparse
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyllama.llama import LLM

__all__ = ["add_model", "load", "unescape"]

# Options that the commands declare themselves.
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
    """Declare the model, its projector, and all options of llama.cpp's parser.

    Parameters
    ----------
    parser : argparse.ArgumentParser
    default : (str, str), optional
        Default model and projector.
    """
    from cyllama.llama.options import engine_options, ignored_reason, is_http_option, unsafe_reason

    about = "a GGUF file, or a name of `cyllama models list`"
    if default is not None:
        about += f"; default: {default[0]} with the projector {default[1]}"
    parser.add_argument("-m", "--model", required=default is None, help=about)
    parser.add_argument("-mm", "--mmproj", help="projector of a multimodal model: a file, or a name")
    parser.set_defaults(default_model=default)
    parser.add_argument("--draft-model", help="draft model for speculative decoding, or 'ngram'")
    parser.add_argument("--lora", action="append", default=[], metavar="FILE[:WEIGHT]", help="LoRA adapter; repeatable")
    parser.add_argument("-v", "--verbose", action="store_true", help="show the engines' log")
    group = parser.add_argument_group("options of llama.cpp")
    taken = set(parser._option_string_actions)
    for info in engine_options():
        every: Any = info["names"]
        names = [name for name in every if name not in taken]
        is_supported = unsafe_reason(info) is None and not is_http_option(info) and ignored_reason(info) is None
        if not names or OWN & set(every) or not is_supported:
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


def load(arguments: argparse.Namespace, **more: Any) -> LLM:
    """Load the model of the arguments.

    Parameters
    ----------
    arguments : argparse.Namespace
    **more
        Arguments of `LLM` that replace those of the command line.
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
        model, default_projector = arguments.default_model
        projector = projector or default_projector
    more = {"mmproj": projector, "draft_model": arguments.draft_model, "loras": loras, "options": options, **more}
    return LLM(model, **more)


def _adapter(text: str) -> tuple[str, float]:
    path, colon, weight = text.rpartition(":")
    try:
        return (path, float(weight)) if colon else (text, 1.0)
    except ValueError:
        return text, 1.0


def unescape(text: str) -> str:
    r"""Replace escape sequences such as ``\n`` and ``\t``."""
    from cyllama.llama import string_process_escapes

    return string_process_escapes(text)
