"""Kinds of parameters; the build reads them without the rest of the package."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["kind_of"]

# Kinds by annotation, without "| None".
KINDS = {
    "int": "int",
    "float": "float",
    "bool": "bool",
    "str": "text",
    "Path": "path",
    "Image": "image",
    "Sequence[int]": "ints",
    "Sequence[float]": "floats",
    "Sequence[Image]": "images",
}


def kind_of(annotation: str, metadata: Mapping[str, Any]) -> str:
    """Return the kind of a parameter, by its declaration.

    Parameters
    ----------
    annotation : str
        As written, such as ``"int | None"``.
    metadata : mapping
        The keywords of `param`.
    """
    plain = annotation.removesuffix(" | None")
    if metadata.get("kind"):
        return str(metadata["kind"])
    if metadata.get("enum"):
        return "enum"
    if metadata.get("choices"):
        return "choice"
    if plain in KINDS:
        return KINDS[plain]
    if plain.startswith("Callable["):
        return "callable"
    if re.fullmatch(r"\w+Params", plain):
        return "params"
    if re.fullmatch(r"Sequence\[[A-Z]\w+\]", plain):
        return "list"
    return "any"
