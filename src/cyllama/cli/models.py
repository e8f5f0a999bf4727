"""``cyllama models``: list, download and remove models."""

from __future__ import annotations

import argparse
import dataclasses
import json

from cyllama import models

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the sub-commands."""
    commands = parser.add_subparsers(dest="command", required=True, metavar="list|get|path|remove")
    listing = commands.add_parser(
        "list", help="list the models of the registry, and those of other stores on this machine"
    )
    listing.add_argument("--json", action="store_true", help="print JSON")
    getting = commands.add_parser("get", help="download models, and print their paths")
    getting.add_argument("names", nargs="*", metavar="NAME", help="names as of `cyllama pull`")
    getting.add_argument("--all", action="store_true", help="all models of the registry")
    getting.add_argument("--verify", action="store_true", help="check the hash of cached files")
    where = commands.add_parser("path", help="print the path of a model in the cache, without downloading it")
    where.add_argument("names", nargs="+", metavar="NAME")
    removing = commands.add_parser("remove", help="remove models from the cache")
    removing.add_argument("names", nargs="+", metavar="NAME")


def run(arguments: argparse.Namespace) -> int:
    """Run the sub-command."""
    if arguments.command == "list":
        _list(arguments.json)
        return 0
    names: list[str] = list(arguments.names)
    if arguments.command == "get":
        if bool(names) == arguments.all:
            raise ValueError("expected the names of models, or --all")
        names = names or [model.name for model in models.list_models()]
    for name in names:
        if arguments.command == "get":
            print(models.get(name, verify=arguments.verify))
        elif arguments.command == "path":
            print(models.path(name))
        else:
            removed = models.remove(name)
            print(f"{models.find(name).name}: {'removed' if removed else 'not in the cache'}")
    return 0


def _list(as_json: bool) -> None:
    known = models.list_models()
    stored = _stored()
    if as_json:
        rows = []
        for model in known:
            here = {"installed": models.installed(model.name), "path": str(models.path(model.name))}
            rows.append({**dataclasses.asdict(model), "use": model.use, **here})
        print(json.dumps([*rows, *(dataclasses.asdict(entry) for entry in stored)], indent=2, default=str))
        return
    table = [("name", "kind", "size", "state", "use")]
    for model in known:
        state = "cached" if models.installed(model.name) else "-"
        table.append((model.name, model.kind, _megabytes(model.size), state, model.use))
    table += [(entry.name, entry.kind, _megabytes(entry.size), "cached", entry.use) for entry in stored]
    widths = [max(len(row[i]) for row in table) for i in range(4)]
    for name, kind, size, state, use in table:
        print(f"{name:{widths[0]}}  {kind:{widths[1]}}  {size:>{widths[2]}}  {state:{widths[3]}}  {use}")


@dataclasses.dataclass(frozen=True)
class _Stored:
    """A model on this machine that is not of the registry."""

    name: str
    kind: str
    size: int
    path: str
    use: str
    installed: bool = True


def _stored() -> list[_Stored]:
    """Return the models of the Hugging Face cache and of the Ollama store."""
    found = []
    for name, size, path in models.hub_models():
        kind = "projector" if "mmproj" in name.casefold() else "text" if name.endswith(".gguf") else "other"
        found.append(_Stored(name, kind, size, str(path), f"cyllama chat -m {name}" if kind == "text" else "-"))
    for model in models.ollama_models():
        kind = "text" if model.projector is None else "text, images"
        found.append(_Stored(model.name, kind, model.size, str(model.path), f"cyllama chat -m {model.name}"))
    return found


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
