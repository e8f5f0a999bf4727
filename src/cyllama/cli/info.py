"""``cyllama info``: show versions, backends and devices of this build."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print ``cyllama.build_info()``."""
    import cyllama

    info: dict[str, Any] = cyllama.build_info()
    if arguments.json:
        print(json.dumps(info, indent=2, default=str))
    else:
        print("\n".join(_lines(info)))
    return 0


def _lines(values: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    width = max((len(str(key)) for key in values), default=0) + 1
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield f"{indent}{key}:"
            yield from _lines(value, indent + "  ")
        elif isinstance(value, (list, tuple)) and value and any(isinstance(item, Mapping) for item in value):
            yield f"{indent}{key}:"
            for item in value:
                text = ", ".join(f"{k} {_format(v)}" for k, v in item.items()) if isinstance(item, Mapping) else item
                yield f"{indent}  {text}"
        else:
            yield f"{indent}{str(key) + ':':{width}} {_format(value)}"


def _format(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "-"
    if isinstance(value, (list, tuple, set, frozenset)):
        return ", ".join(map(str, value)) or "none"
    return str(value)
