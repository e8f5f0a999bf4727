"""What the commands that make pictures have in common: flags out of the dataclasses, the run, the lines they print."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from cyllama import sd
from cyllama.cli._terminal import Screen

__all__ = ["add_generation", "add_image", "add_tool", "generate", "given"]

KINDS: dict[str, Any] = {
    "path": os.PathLike,
    "images": os.PathLike,
    "enum": str,
    "rules": str,
    "mask": str,
    "int": int,
    "float": float,
    "bool": bool,
}
LEFT_OUT = ("output_type", "loras")  # there are no such flags, or others
SWITCH = "enabled"  # of parameters that are switched on by being given


def add_generation(parser: argparse.ArgumentParser, kind: type, output: str) -> None:
    """Declare the prompt, the model and its parts, the options of `kind`, and where the result goes."""
    parser.add_argument("prompt", help="what is to be seen")
    parser.add_argument("-m", "--model", help="a name of `cyllama models list`, or a file or folder")
    parser.add_argument("-o", "--output", type=Path, help=f"file to write; default: {output}")
    parser.add_argument("--progress", action=argparse.BooleanOptionalAction, help="show the steps on stderr")
    options = parser.add_argument_group("options (by default, those of the model's family)")
    for field in dataclasses.fields(kind):
        if field.name not in LEFT_OUT and field.metadata.get("kind") is not None:
            _add_field(options, field.name, field.metadata["kind"], field.metadata)
    options.add_argument(
        "--lora", action="append", default=[], metavar="FILE[:WEIGHT]", help="a LoRA; may be given several times"
    )
    for field in dataclasses.fields(kind):
        if "more" in field.metadata:
            more = parser.add_argument_group(field.metadata["help"])
            for name, part in _more(field).items():
                images = {"nargs": "+"} if part.metadata["kind"] == "images" else {}
                _add_field(more, name, KINDS[part.metadata["kind"]], {**part.metadata, **images})
    parts = parser.add_argument_group("parts and parameters of the model")
    parts.add_argument("--lora-dir", help="folder for <lora:name:weight>; default: the model's")
    parts.add_argument(
        "--embedding", action="append", metavar="WORD=FILE", type=_word_and_file,
        help="a textual inversion and the word that stands for it in the prompt; may be given several times",
    )  # fmt: skip
    for field in dataclasses.fields(sd.SDContextParams):
        name = field.name.removesuffix("_path")
        if name == "model":
            continue
        if field.metadata["kind"] in KINDS:
            _add_field(parts, name, KINDS[field.metadata["kind"]], field.metadata)


def _more(option: Any) -> dict[str, Any]:
    """The fields of the parameters that an option may be, by the names of their flags; one is the option's own."""
    prefix, main = option.metadata.get("prefix", option.name), option.metadata.get("main")
    fields = dataclasses.fields(option.metadata["more"])
    return {f"{prefix}_{field.name.lower()}": field for field in fields if field.name not in (main, SWITCH)}


def _add_field(group: Any, name: str, kind: Any, metadata: Any) -> None:
    flags = [f"-{metadata['short']}"] if "short" in metadata else []
    flags.append("--" + name.replace("_", "-"))
    help_text = metadata["help"].replace("%", "%%")
    if kind is bool:
        group.add_argument(*flags, dest=name, action=argparse.BooleanOptionalAction, help=help_text)
    elif kind is list:
        of = metadata["of"]
        group.add_argument(*flags, dest=name, type=_several(of), metavar=f"{_shown(of)},...", help=help_text)
    else:
        convert = str if kind is os.PathLike else kind
        group.add_argument(
            *flags, dest=name, type=convert, metavar=_shown(kind), help=help_text, nargs=metadata.get("nargs")
        )


def _shown(kind: Any) -> str:
    return {str: "TEXT", int: "N", float: "NUMBER", os.PathLike: "FILE"}[kind]


def _several(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    def numbers(text: str) -> list[Any]:  # its name stands in argparse's message
        return [kind(part) for part in text.split(",")]

    return numbers


def _word_and_file(text: str) -> tuple[str, str]:
    word, equals, path = text.partition("=")
    if not (word and equals and path):
        raise argparse.ArgumentTypeError(f"{text!r} is no WORD=FILE")
    return word, path


def add_image(parser: argparse.ArgumentParser, name: str, help_text: str, **more: Any) -> None:
    """Declare a picture that the command starts from."""
    parser.add_argument(f"--{name.replace('_', '-')}", dest=name, required=True, metavar="FILE", help=help_text, **more)


def add_tool(parser: argparse.ArgumentParser, help_text: str, output: str) -> None:
    """Declare a file in and a file out."""
    parser.add_argument("input", help=help_text)
    parser.add_argument("-o", "--output", type=Path, help=f"file to write; default: {output}")


def given(arguments: argparse.Namespace, *without: str) -> dict[str, Any]:
    """The options that were given, as keyword arguments."""
    left_out = ("prompt", "output", "lora", *without)
    values = {name: value for name, value in vars(arguments).items() if value is not None and name not in left_out}
    if loras := [_lora(text) for text in getattr(arguments, "lora", [])]:
        values["loras"] = loras
    if "embedding" in values:
        values["embeddings"] = dict(values.pop("embedding"))
    return values


def _with_more(values: dict[str, Any], kind: type) -> dict[str, Any]:
    """The options, with what was said of one of them as its parameters."""
    for option in dataclasses.fields(kind):
        if "more" not in option.metadata:
            continue
        chosen = {field.name: values.pop(name) for name, field in _more(option).items() if name in values}
        if chosen:
            main = option.metadata.get("main")
            if main and option.name in values:
                chosen[main] = values[option.name]
            values[option.name] = option.metadata["more"](**chosen)
    return values


def _lora(text: str) -> tuple[str, float]:
    path, colon, weight = text.rpartition(":")
    if not colon or os.path.exists(text):
        return text, 1.0
    try:
        return path, float(weight)
    except ValueError:
        raise ValueError(f"--lora is {text!r}, expected FILE or FILE:WEIGHT") from None


def check_target(path: Path, *, video: bool = False) -> None:
    """Refuse a name under which the result could not be written, before it is made.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, ValueError, UnsupportedError
    """
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"there is no folder {str(path.parent)!r} for {path.name!r}")
    if video:
        sd.check_video_path(path)
        return
    if path.is_dir():
        raise IsADirectoryError(f"{str(path)!r} is a directory, expected a file to write")
    if Image.registered_extensions().get(path.suffix.casefold()) not in Image.SAVE:
        raise ValueError(f"{path.name!r} has the ending {path.suffix!r}, expected that of a picture, such as .png")


def generate(arguments: argparse.Namespace, call: Callable[..., Any], kind: type, ending: str, *images: str) -> int:
    """Call one of `cyllama.sd`'s functions, write what it gives, and print the names of the files.

    Parameters
    ----------
    arguments : argparse.Namespace
    call : callable
        Such as `cyllama.sd.txt2img`.
    kind : type
        `cyllama.sd.ImageOptions` or `cyllama.sd.VideoOptions`.
    ending : str
        Of the files, if no name was given.
    *images : str
        The names of the pictures among the arguments, in the order of `call`.

    Returns
    -------
    int
        The exit code.
    """
    if arguments.output is not None:
        check_target(arguments.output, video=kind is sd.VideoOptions)
    options = _with_more(given(arguments, "model", *images), kind)
    if "preview" in options:
        options["on_preview"] = Screen(sys.stderr).show
    options.setdefault("progress", sys.stderr.isatty())
    result = call(arguments.prompt, *(getattr(arguments, name) for name in images), arguments.model, **options)
    seed = result.parameters["seed"]
    target = arguments.output or Path(f"{call.__name__}-{seed}{ending}")
    written = result.save(target)
    for path in written if isinstance(written, list) else [written]:
        print(path)
    return 0
