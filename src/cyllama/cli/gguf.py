"""``cyllama gguf``: show, edit, split and merge GGUF files."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from cyllama._paths import expanded

__all__ = ["add_arguments", "run"]

FEW = 8
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the subcommands."""
    commands = parser.add_subparsers(dest="command", required=True, metavar="show|set|split|merge")
    show = commands.add_parser("show", help="print the metadata and the tensors")
    show.add_argument("file", help="a GGUF file, or a name of `cyllama models list`")
    show.add_argument("key", nargs="*", help="print only the values of these keys, as JSON")
    show.add_argument("--tensors", action="store_true", help="also print the tensors")
    show.add_argument("--json", action="store_true", help="print JSON with complete lists")
    change = commands.add_parser("set", help="write a copy with a changed key")
    change.add_argument("file", help="a GGUF file, or a name of `cyllama models list`")
    change.add_argument("key", help="such as general.name")
    change.add_argument("value", help="value, as JSON or text")
    change.add_argument("-o", "--output", type=expanded, required=True, help="file to write; may be the input file")
    change.add_argument(
        "--type", help="type, such as u32, f32, str, arr[i32]; default: the current type, or that of the value"
    )
    change.add_argument("--remove", action="store_true", help="remove the key; VALUE is ignored")
    split = commands.add_parser("split", help="split a model into several files")
    split.add_argument("file", help="a GGUF file, or a name of `cyllama models list`")
    split.add_argument("prefix", help="prefix of the files: PREFIX-00001-of-00002.gguf, ...")
    limits = split.add_mutually_exclusive_group()
    limits.add_argument(
        "--split-max-tensors", type=int, metavar="N", help="maximum number of tensors per file (default: 128)"
    )
    limits.add_argument(
        "--split-max-size", type=parse_size, metavar="N[K|M|G]", help="maximum bytes of tensors per file"
    )
    merge = commands.add_parser("merge", help="merge the files of a split model")
    merge.add_argument("first", type=expanded, help="the first file")
    merge.add_argument("output", type=expanded, help="file to write")


def parse_size(text: str) -> int:
    """Parse a number of bytes, such as ``2G``."""
    match = re.fullmatch(r"(\d+)([KMG]?)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"size is {text!r}, expected such as 500M or 2G")
    return int(match[1]) * UNITS[match[2]]


def run(arguments: argparse.Namespace) -> int:
    """Run the subcommand."""
    from cyllama import models
    from cyllama.llama import gguf_merge, gguf_split

    if arguments.command == "merge":
        print(gguf_merge(arguments.first, arguments.output))
        return 0
    path = models.resolve(arguments.file)
    if arguments.command == "show":
        return _show(path, arguments)
    if arguments.command == "set":
        return _set(path, arguments)
    limits = {"max_tensors": arguments.split_max_tensors, "max_size": arguments.split_max_size}
    for part in gguf_split(path, arguments.prefix, **limits):
        print(part)
    return 0


def _show(path: Path, arguments: argparse.Namespace) -> int:
    from cyllama.llama import GGUFContext

    with GGUFContext.from_file(path) as file:
        for key in arguments.key:
            if key not in file:
                raise ValueError(f"{path} has no key {key!r}")
            print(json.dumps(_plain(file[key]), ensure_ascii=False))
        if arguments.key:
            return 0
        tensors = [
            {"name": info.name, "type": info.type.name.lower(), "shape": list(info.shape), "size": info.size}
            for info in file.tensors()
        ]
        if arguments.json:
            values = {key: _plain(file[key]) for key in file}
            print(json.dumps({"metadata": values, "tensors": tensors}, ensure_ascii=False, indent=1))
            return 0
        for key in file:
            print(f"{key} ({file.type_of(key)}): {_short(file[key])}")
        total = sum(info.size for info in file.tensors())
        print(f"{len(tensors)} tensors, {total / 1e6:.1f} MB")
        if arguments.tensors:
            for info in tensors:
                print(f"  {info['name']} {info['type']} {'x'.join(map(str, info['shape']))}")
    return 0


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _short(value: Any) -> str:
    value = _plain(value)
    if isinstance(value, list) and len(value) > FEW:
        return f"{json.dumps(value[:FEW], ensure_ascii=False)[:-1]}, ...] ({len(value)})"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:200]}... ({len(value)} characters)"


def _set(path: Path, arguments: argparse.Namespace) -> int:
    from cyllama.llama import GGUFContext

    with GGUFContext.from_file(path) as file:
        if arguments.remove:
            file.remove(arguments.key)
        else:
            kind = arguments.type or (file.type_of(arguments.key) if arguments.key in file else None)
            file.set(arguments.key, _value(arguments.value, kind), kind)
        file.write(arguments.output)
    print(arguments.output)
    return 0


def _value(text: str, kind: str | None) -> Any:
    if kind == "str":
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text
