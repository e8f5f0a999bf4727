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
    listing = commands.add_parser("list", help="list the models of the registry")
    listing.add_argument("--json", action="store_true", help="print JSON")
    getting = commands.add_parser("get", help="download models, and print their paths")
    getting.add_argument("names", nargs="*", metavar="NAME", help="a name, or hf:organisation/repository/file")
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
    if as_json:
        rows = []
        for model in known:
            here = {"installed": models.installed(model.name), "path": str(models.path(model.name))}
            rows.append({**dataclasses.asdict(model), **here})
        print(json.dumps(rows, indent=2))
        return
    width = max(len(model.name) for model in known)
    for model in known:
        state = "cached" if models.installed(model.name) else "-"
        print(f"{model.name:{width}}  {model.engine:7}  {model.size / 1e6:7.1f} MB  {state:6}  {model.about}")
