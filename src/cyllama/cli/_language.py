"""Options of the commands with a language model; each option of llama.cpp's parser is a flag."""

from __future__ import annotations

import argparse
import logging
import re
from typing import TYPE_CHECKING, Any

from cyllama.cli._foreign_flags import LLAMA_REFUSED, llama_refused, refuse
from cyllama.cli._parser import CommandParser
from cyllama.models import HUB_PREFIX

if TYPE_CHECKING:
    from cyllama.llama import LLM

__all__ = ["add_model", "load", "named_model", "unescape"]

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


def add_model(parser: CommandParser, *, default: tuple[str, str] | None = None, required: bool = True) -> None:
    """Declare the model, its projector, and all options of llama.cpp's parser.

    Parameters
    ----------
    parser : CommandParser
    default : (str, str), optional
        Default model and projector.
    required : bool
        Whether a missing model is wrong usage.
    """
    from cyllama.llama.options import engine_options

    about = "a GGUF file, a name of `cyllama models list`, hf:org/repo:QUANTIZATION, or ollama:NAME"
    if default is not None:
        about += f"; default: {default[0]} with the projector {default[1]}"
    model = parser.add_mutually_exclusive_group(required=required and default is None)
    model.add_argument("-m", "--model", help=about)
    model.add_argument("-hf", "-hfr", "--hf-repo", metavar="ORG/REPO[:QUANTIZATION]", help="same as -m hf:...")
    parser.add_argument("-hff", "--hf-file", metavar="FILE", help="file of the repository of -hf")
    parser.add_argument("-mm", "--mmproj", help="projector of a multimodal model: a file, or a name")
    parser.set_defaults(default_model=default)
    parser.add_argument(
        "--draft-model",
        "-md",
        "--model-draft",
        "--spec-draft-model",
        metavar="MODEL",
        help="draft model for speculative decoding, or 'ngram'",
    )
    parser.add_argument("--lora", action="append", default=[], metavar="FILE[:WEIGHT]", help="LoRA adapter; repeatable")
    parser.add_argument("-v", "--verbose", action="store_true", help="show the engines' log")
    group = parser.add_argument_group("options of llama.cpp")
    taken = set(parser._option_string_actions)
    refused: dict[str, list[str]] = {}
    for info in engine_options():
        every: Any = info["names"]
        names = [name for name in every if name not in taken]
        reason = llama_refused(info)
        if not names or OWN & set(every):
            continue
        if reason is not None:
            refused.setdefault(reason, []).extend(names)
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
    refuse(parser, LLAMA_REFUSED)
    refuse(parser, refused)


def _plain(text: str) -> str:
    return re.sub(r" \(env: \w+\)", "", " ".join(text.split())).replace("%", "%%")


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
    model, projector = named_model(arguments), arguments.mmproj
    if model is None:
        model, default_projector = arguments.default_model
        projector = projector or default_projector
    more = {"mmproj": projector, "draft_model": arguments.draft_model, "loras": loras, "options": options, **more}
    return LLM(model, **more)


def named_model(arguments: argparse.Namespace) -> str | None:
    """Return the model of ``-m`` or of ``-hf`` and ``-hff``; None if there is none.

    Raises
    ------
    ValueError
    """
    repository, file = arguments.hf_repo, arguments.hf_file
    if repository is None:
        if file is not None:
            raise ValueError(f"--hf-file is {file!r}, expected --hf-repo with it")
        model: str | None = arguments.model
        return model
    name = HUB_PREFIX + str(repository).removeprefix(HUB_PREFIX)
    return name if file is None else f"{HUB_PREFIX}{name.split(':')[1]}/{file}"


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
