"""Flags of the command line from the declarations of parameters."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from typing import Any

from cyllama._param_kinds import kind_of

__all__ = ["add_flag", "comma_separated"]

# Type and placeholder of a flag, by the kind of the parameter.
TYPES: dict[str, tuple[Callable[[str], Any], str]] = {
    "int": (int, "N"),
    "float": (float, "NUMBER"),
    "text": (str, "TEXT"),
    "enum": (str, "NAME"),
    "choice": (str, "NAME"),
    "path": (str, "FILE"),
    "image": (str, "FILE"),
    "images": (str, "FILE"),
}


def add_flag(group: Any, name: str, field: dataclasses.Field[Any]) -> None:
    """Declare the flag of a parameter; parameters of other kinds have none.

    Parameters
    ----------
    group : argparse._ArgumentGroup
    name : str
        The flag is ``--name`` with dashes.
    field : dataclasses.Field
        Declared by `cyllama._params.param`.
    """
    metadata = field.metadata
    kind = kind_of(str(field.type), metadata)
    flags = [f"-{metadata['short']}"] if metadata["short"] else []
    flags.append("--" + name.replace("_", "-"))
    text = metadata["help"].replace("%", "%%")
    if kind == "bool":
        group.add_argument(*flags, dest=name, action=argparse.BooleanOptionalAction, help=text)
    elif kind in ("ints", "floats"):
        convert, shown = TYPES[kind.removesuffix("s")]
        group.add_argument(*flags, dest=name, type=comma_separated(convert), metavar=f"{shown},...", help=text)
    elif kind in TYPES:
        convert, shown = TYPES[kind]
        nargs = "+" if kind == "images" else metadata["nargs"]
        group.add_argument(
            *flags, dest=name, type=convert, metavar=shown, help=text, nargs=nargs, choices=metadata["choices"]
        )


def comma_separated(convert: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    """Return a type for argparse: values separated by commas."""

    def numbers(text: str) -> list[Any]:  # argparse shows the name in its message
        return [convert(part) for part in text.split(",")]

    return numbers
