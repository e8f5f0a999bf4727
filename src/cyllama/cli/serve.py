"""``cyllama serve``: all engines behind one OpenAI-compatible server."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from pathlib import Path
from typing import Any

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; the limits are the fields of `Limits`."""
    from cyllama.server.config import KEY_VARIABLE, Limits

    parser.add_argument("-c", "--config", type=Path, metavar="FILE", help="TOML file with models and settings")
    parser.add_argument("-m", "--model", metavar="MODEL", help="language model: a file or a name")
    parser.add_argument("--embeddings", metavar="MODEL", help="model for embeddings")
    parser.add_argument("--rerank", metavar="MODEL", help="model for reranking")
    parser.add_argument("--whisper", metavar="MODEL", help="model for speech")
    parser.add_argument("--sd", metavar="MODEL", help="model for pictures")
    parser.add_argument("--mmproj", metavar="FILE", help="projector for pictures and sound of the language model")
    parser.add_argument("--n-ctx", type=int, help="tokens of context of the language model")
    parser.add_argument("--n-parallel", type=int, help="requests that it answers at the same time")
    parser.add_argument("--host", help="address to listen on (default: 127.0.0.1, this machine alone)")
    parser.add_argument("--port", type=int, help="port (default: 8080; 0: a free one)")
    parser.add_argument(
        "--api-key-file", type=Path, metavar="FILE", help=f"keys, one a line; also from the variable {KEY_VARIABLE}"
    )
    parser.add_argument("--memory", metavar="BYTES", help="memory of all loaded models, such as 8GiB")
    parser.add_argument("--cors", action="append", metavar="ORIGIN", help="pages elsewhere that may use it; repeatable")
    parser.add_argument(
        "--any-name", action="store_true", default=None, help="answer for any model's name, as llama-server does"
    )
    parser.add_argument("--preload", action="store_true", help="load the models at the start")
    parser.add_argument("-v", "--verbose", action="store_true", help="say what happens")
    group = parser.add_argument_group("limits")
    for item in dataclasses.fields(Limits):
        kind: Any = str if item.name in ("body", "bodies") else type(item.default)
        text = f"{item.metadata['help']} (default: {item.default:,})"
        group.add_argument(f"--max-{item.name.replace('_', '-')}", type=kind, help=text, metavar="N")


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to end."""
    from cyllama.server import serve

    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    if arguments.verbose:
        logging.getLogger("cyllama.server").setLevel(logging.INFO)
    config = configuration(arguments)

    def started(address: str) -> None:
        names = ", ".join(entry.name for entry in config.models)
        print(f"{address} ({names})", file=sys.stderr, flush=True)

    serve(config, on_start=started)
    return 0


def configuration(arguments: argparse.Namespace) -> Any:
    """What the file says, and the arguments, which win."""
    from cyllama.server.config import Limits, ServerConfig, environment_keys, key_file, parse_bytes

    changes: dict[str, Any] = {
        "host": arguments.host,
        "port": arguments.port,
        "any_name": arguments.any_name,
        "cors_origins": arguments.cors,
        "memory": None if arguments.memory is None else parse_bytes(arguments.memory, "--memory"),
    }
    entries = _entries(arguments)
    if arguments.config is None:
        config = ServerConfig(models=entries, **{k: v for k, v in changes.items() if v is not None})
    else:
        config = ServerConfig.from_file(arguments.config, **changes)
        config = dataclasses.replace(config, models=[*config.models, *entries])
    if arguments.preload:
        config = dataclasses.replace(
            config, models=[dataclasses.replace(entry, preload=True) for entry in config.models]
        )
    keys = [*config.api_keys, *environment_keys()]
    if arguments.api_key_file is not None:
        keys += key_file(arguments.api_key_file)
    given = {f.name: getattr(arguments, f"max_{f.name}") for f in dataclasses.fields(Limits)}
    limits = {
        name: parse_bytes(value, f"--max-{name}") if isinstance(value, str) else value
        for name, value in given.items()
        if value is not None
    }
    return dataclasses.replace(config, api_keys=keys, limits=dataclasses.replace(config.limits, **limits))


def _entries(arguments: argparse.Namespace) -> list[Any]:
    """The models of the command line, called as their files are."""
    from cyllama.server.config import ModelEntry

    of_text = {"n_ctx": arguments.n_ctx, "n_parallel": arguments.n_parallel, "mmproj": arguments.mmproj}
    wanted: list[tuple[str | None, str, dict[str, Any]]] = [
        (arguments.model, "llm", {name: value for name, value in of_text.items() if value is not None}),
        (arguments.embeddings, "llm", {"embedding": True}),
        (arguments.rerank, "llm", {"reranking": True}),
        (arguments.whisper, "whisper", {}),
        (arguments.sd, "sd", {}),
    ]
    return [
        ModelEntry(name=Path(model).stem if Path(model).is_file() else model, kind=kind, model=model, settings=settings)
        for model, kind, settings in wanted
        if model is not None
    ]
