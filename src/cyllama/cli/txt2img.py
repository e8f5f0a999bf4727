"""Commands that generate and process images: txt2img, img2img, inpaint, edit, txt2vid, img2vid, upscale, canny."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import re
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from cyllama import log, sd
from cyllama._params import Params
from cyllama._paths import expanded
from cyllama.cli._flags import add_flag
from cyllama.cli._foreign_flags import SD_NAMES, SD_REFUSED, add_names, refuse
from cyllama.cli._parser import CommandParser
from cyllama.cli._terminal import Preview
from cyllama.sd.options import Options

__all__ = ["COMMANDS", "add_arguments", "run"]

START: tuple[str, str, dict[str, Any]] = ("image", "image to start from", {})
COMMANDS: dict[str, tuple[type[Options], list[tuple[str, str, dict[str, Any]]]]] = {
    "txt2img": (sd.ImageOptions, []),
    "img2img": (sd.ImageOptions, [START]),
    "inpaint": (sd.ImageOptions, [START, ("mask_image", "mask of the same size: white where to inpaint", {})]),
    "edit": (sd.ImageOptions, [("images", "reference images", {"nargs": "+"})]),
    "txt2vid": (sd.VideoOptions, []),
    "img2vid": (sd.VideoOptions, [("image", "first frame", {})]),
}
"""Name of a command and of the function of `cyllama.sd`: its options, and its images as (name, help, more)."""

ENABLED = "enabled"  # switch of nested parameters: they are enabled by being given


def add_arguments(parser: CommandParser) -> None:
    """Declare the arguments of the command in the parser's name."""
    command = parser.prog.split()[-1]
    parser.set_defaults(image_command=command)
    if command == "upscale":
        _add_upscale(parser)
    elif command == "canny":
        _add_canny(parser)
    else:
        kind, images = COMMANDS[command]
        for name, text, more in images:
            flag = f"--{name.replace('_', '-')}"
            parser.add_argument(flag, dest=name, required=True, metavar="FILE", help=text, **more)
        ending = ".webp" if kind is sd.VideoOptions else ".png"
        _add_generation(parser, kind, f"{command}-SEED{ending}")


def run(arguments: argparse.Namespace) -> int:
    """Run the command, and print the names of the files."""
    command = arguments.image_command
    if command == "upscale":
        return _run_tool(arguments, sd.upscale, "large")
    if command == "canny":
        return _run_tool(arguments, sd.canny, "edges")
    return _generate(arguments, command)


def _add_generation(parser: CommandParser, kind: type[Options], output: str) -> None:
    parser.add_argument("prompt", nargs="?", help="what to show")
    parser.add_argument("-p", "--prompt", dest="prompt_option", metavar="PROMPT", help="same as PROMPT")
    parser.add_argument("-v", "--verbose", action="store_true", help="show the engine's log")
    parser.set_defaults(usage_error=parser.error)
    parser.add_argument("-m", "--model", help="a name of `cyllama models list`, or a file or folder")
    parser.add_argument("-o", "--output", type=expanded, help=f"file to write; default: {output}")
    parser.add_argument("--progress", action=argparse.BooleanOptionalAction, help="show the steps on stderr")
    group = parser.add_argument_group("options (default: those of the model's family)")
    fields = dataclasses.fields(kind)
    for field in fields:
        if field.metadata["flag"]:
            add_flag(group, field.name, field)
    group.add_argument(
        "--lora", action="append", default=[], metavar="FILE[:WEIGHT]", help="a LoRA; may be given several times"
    )
    for field in fields:
        if nested := _nested(field):
            group = parser.add_argument_group(field.metadata["help"])
            for name, part in nested.items():
                add_flag(group, name, part)
    group = parser.add_argument_group("components and parameters of the model")
    group.add_argument("--lora-dir", help="folder for <lora:name:weight>; default: the model's")
    group.add_argument(
        "--embedding", action="append", metavar="WORD=FILE", type=_word_and_file,
        help="a textual inversion and the word that stands for it in the prompt; may be given several times",
    )  # fmt: skip
    for field in dataclasses.fields(sd.SDContextParams):
        name = field.name.removesuffix("_path")
        if name != "model":
            add_flag(group, name, field)
    add_names(parser, SD_NAMES)
    refuse(parser, SD_REFUSED)


def _add_tool(parser: argparse.ArgumentParser, output: str) -> None:
    parser.add_argument("input", help="image")
    parser.add_argument("-o", "--output", type=expanded, help=f"file to write; default: {output}")


def _add_upscale(parser: argparse.ArgumentParser) -> None:
    _add_tool(parser, "INPUT-large.png")
    parser.add_argument("-m", "--model", help="a name of `cyllama models list`, or a file")
    parser.add_argument("--factor", type=float, help="scale; default: the network's")
    parser.add_argument("--tile-size", type=int, help="side of a tile in pixels; 0: no tiles; default: 128")
    parser.add_argument("--n-threads", type=int, help="threads; default: the thread budget")
    parser.add_argument("--progress", action=argparse.BooleanOptionalAction, help="show the tiles on stderr")


def _add_canny(parser: argparse.ArgumentParser) -> None:
    _add_tool(parser, "INPUT-edges.png")
    parser.add_argument("--high-threshold", type=float, help="strength of an edge, 0 to 1; default: 0.08")
    parser.add_argument("--low-threshold", type=float, help="strength of its continuation, as a fraction of that")
    parser.add_argument("--weak", type=float, help="brightness of weak edges, 0 to 1; default: 0.8")
    parser.add_argument("--strong", type=float, help="brightness of strong edges, 0 to 1; default: 1")
    parser.add_argument("--inverse", action="store_true", default=None, help="dark edges on a bright background")


def _nested(option: dataclasses.Field[Any]) -> dict[str, dataclasses.Field[Any]]:
    """Return the parameters of the class that an option may be, by the names of their flags."""
    found = re.search(r"(\w+Params)\b", str(option.type))
    if found is None:
        return {}
    prefix, main = option.metadata["prefix"] or option.name, option.metadata["main"]
    fields = dataclasses.fields(getattr(sd, found[1]))
    return {f"{prefix}_{field.name.lower()}": field for field in fields if field.name not in (main, ENABLED)}


def _given(arguments: argparse.Namespace, *without: str) -> dict[str, Any]:
    """Return the options that were given, as keyword arguments."""
    left_out = ("image_command", "prompt", "prompt_option", "verbose", "usage_error", "output", "lora", *without)
    values = {name: value for name, value in vars(arguments).items() if value is not None and name not in left_out}
    if loras := [_lora(text) for text in getattr(arguments, "lora", [])]:
        values["loras"] = loras
    if "embedding" in values:
        values["embeddings"] = dict(values.pop("embedding"))
    return values


def _join_nested(values: dict[str, Any], kind: type[Options]) -> dict[str, Any]:
    """Return the options, with the flags of nested parameters as their objects."""
    for option in dataclasses.fields(kind):
        chosen = {field.name: values.pop(name) for name, field in _nested(option).items() if name in values}
        if chosen:
            main = option.metadata["main"]
            if main and option.name in values:
                chosen[main] = values[option.name]
            found = re.search(r"(\w+Params)\b", str(option.type))
            assert found is not None
            nested: type[Params] = getattr(sd, found[1])
            values[option.name] = nested(**chosen)
    return values


def _word_and_file(text: str) -> tuple[str, str]:
    word, equals, path = text.partition("=")
    if not (word and equals and path):
        raise argparse.ArgumentTypeError(f"{text!r} is not WORD=FILE")
    return word, path


def _lora(text: str) -> tuple[str, float]:
    path, colon, weight = text.rpartition(":")
    if not colon or expanded(text).exists():
        return text, 1.0
    try:
        return path, float(weight)
    except ValueError:
        raise ValueError(f"--lora is {text!r}, expected FILE or FILE:WEIGHT") from None


def _check_target(path: Path, *, video: bool = False) -> None:
    """Check that the result can be written under this name, before it is generated.

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
        raise ValueError(f"{path.name!r} has the ending {path.suffix!r}, expected that of an image, such as .png")


def _generate(arguments: argparse.Namespace, command: str) -> int:
    prompts = [text for text in (arguments.prompt, arguments.prompt_option) if text is not None]
    if len(prompts) != 1:
        arguments.usage_error("the prompt is missing" if not prompts else "the prompt was given twice")
    if arguments.verbose:
        logging.basicConfig(format="%(name)s: %(message)s")
        log.set_level("debug")
    kind, inputs = COMMANDS[command]
    names = [name for name, _, _ in inputs]
    video = kind is sd.VideoOptions
    if arguments.output is not None:
        _check_target(arguments.output, video=video)
    options = _join_nested(_given(arguments, "model", *names), kind)
    if "preview" in options:
        options["on_preview"] = Preview(sys.stderr).show
    options.setdefault("progress", sys.stderr.isatty())
    images = [getattr(arguments, name) for name in names]
    result = getattr(sd, command)(prompts[0], *images, arguments.model, **options)
    target = arguments.output or Path(f"{command}-{result.parameters['seed']}{'.webp' if video else '.png'}")
    written = result.save(target)
    for path in written if isinstance(written, list) else [written]:
        print(path)
    return 0


def _run_tool(arguments: argparse.Namespace, call: Any, suffix: str) -> int:
    source = Path(arguments.input)
    target = arguments.output or source.with_name(f"{source.stem}-{suffix}.png")
    _check_target(target)
    call(source, **_given(arguments, "input")).save(target)
    print(target)
    return 0
