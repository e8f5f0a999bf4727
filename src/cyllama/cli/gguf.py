"""``cyllama gguf``: look into a GGUF file, change what it says, split it and put it together."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

__all__ = ["add_arguments", "run"]

FEW = 8
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sub-commands."""
    commands = parser.add_subparsers(dest="command", required=True, metavar="show|set|split|merge")
    show = commands.add_parser("show", help="print the metadata and the tensors")
    show.add_argument("file", help="a GGUF file, or a name of `cyllama models list`")
    show.add_argument("key", nargs="*", help="print the values of these keys only, as JSON")
    show.add_argument("--tensors", action="store_true", help="print the tensors as well")
    show.add_argument("--json", action="store_true", help="print JSON, all of long lists")
    change = commands.add_parser("set", help="write a copy with another value")
    change.add_argument("file", help="a GGUF file, or a name of `cyllama models list`")
    change.add_argument("key", help="such as general.name")
    change.add_argument("value", help="JSON, or a text")
    change.add_argument("-o", "--output", type=Path, required=True, help="file to write; it may be the same one")
    change.add_argument("--type", help="such as u32, f32, str, arr[i32]; default: as it is, or what the value is")
    change.add_argument("--remove", action="store_true", help="remove the key; VALUE is not looked at")
    split = commands.add_parser("split", help="write a model as several files")
    split.add_argument("file", help="a GGUF file, or a name of `cyllama models list`")
    split.add_argument("prefix", help="the files are called PREFIX-00001-of-00002.gguf and so on")
    limits = split.add_mutually_exclusive_group()
    limits.add_argument("--split-max-tensors", type=int, metavar="N", help="tensors of a file (default: 128)")
    limits.add_argument("--split-max-size", type=size_of, metavar="N[K|M|G]", help="bytes of tensors of a file")
    merge = commands.add_parser("merge", help="put the parts of a model together")
    merge.add_argument("first", type=Path, help="the first part")
    merge.add_argument("output", type=Path, help="file to write")


def size_of(text: str) -> int:
    """A number of bytes out of a text such as ``2G``."""
    match = re.fullmatch(r"(\d+)([KMG]?)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 500M or 2G")
    return int(match[1]) * UNITS[match[2]]


def run(arguments: argparse.Namespace) -> int:
    """Do what the sub-command says."""
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
