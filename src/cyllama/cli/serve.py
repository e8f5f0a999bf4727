"""``cyllama serve``: run the OpenAI-compatible server for all engines."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cyllama._paths import expanded

if TYPE_CHECKING:
    from typing import Unpack

    from cyllama.server.config import EngineKind, ModelEntry, ServerConfig, ServerOptions

__all__ = ["add_arguments", "add_model_arguments", "build_config", "build_model_config", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; the limits are the fields of `Limits`."""
    from cyllama.server.config import KEY_VARIABLE
    from cyllama.server.limits import SIZES, Limits

    add_model_arguments(parser)
    parser.add_argument("--host", help="address to listen on, or several with commas (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (default: 8080; 0: a free port)")
    parser.add_argument(
        "--api-key-file",
        type=expanded,
        metavar="FILE",
        help=f"file with one API key per line; the variable {KEY_VARIABLE} adds keys",
    )
    parser.add_argument(
        "--allow-no-key",
        action="store_true",
        default=None,
        help="listen on a public address without an API key: everyone who can reach it can use it",
    )
    parser.add_argument(
        "--cors", action="append", metavar="ORIGIN", help="origin that may send requests from a browser; repeatable"
    )
    parser.add_argument(
        "--batch-folder",
        type=expanded,
        metavar="FOLDER",
        help="folder of /v1/files and /v1/batches (default: none, no such routes)",
    )
    parser.add_argument("--preload", action="store_true", help="load all models at startup")
    parser.add_argument(
        "--allow-pull",
        action="store_true",
        default=None,
        help="let clients of Ollama's protocol download and delete models",
    )
    for name, text in (("metrics", "/metrics"), ("slots", "/slots, which shows running prompts")):
        parser.add_argument(f"--no-{name}", dest=name, action="store_false", default=None, help=f"do not answer {text}")
    parser.add_argument("-v", "--verbose", action="store_true", help="log requests, loaded and unloaded models")
    group = parser.add_argument_group("limits")
    for item in dataclasses.fields(Limits):
        kind = str if item.name in SIZES else type(item.default)
        text = f"{item.metadata['help']} (default: {item.default:,})"
        group.add_argument(f"--max-{item.name.replace('_', '-')}", type=kind, help=text, metavar="N")


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments about models, as `build_model_config` reads them."""
    parser.add_argument("-c", "--config", type=expanded, metavar="FILE", help="TOML file with models and settings")
    parser.add_argument("-m", "--model", metavar="MODEL", help="language model: a file or a name")
    parser.add_argument("--embeddings", metavar="MODEL", help="embedding model")
    parser.add_argument("--rerank", metavar="MODEL", help="reranking model")
    parser.add_argument("--whisper", metavar="MODEL", help="speech model")
    parser.add_argument("--sd", metavar="MODEL", help="diffusion model")
    parser.add_argument("--mmproj", metavar="FILE", help="projector of a multimodal language model")
    parser.add_argument("--n-ctx", type=int, help="context size of the language model, in tokens")
    parser.add_argument("--n-parallel", type=int, help="slots of the language model: requests that run concurrently")
    parser.add_argument("--memory", metavar="BYTES", help="maximum memory of all loaded models, such as 8GiB")
    parser.add_argument(
        "--any-name", action="store_true", default=None, help="accept unknown model names, as llama-server does"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the server until a signal ends it."""
    from cyllama.server import serve

    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    if arguments.verbose:
        logging.getLogger("cyllama.server").setLevel(logging.INFO)
    config = build_config(arguments)

    def started(url: str) -> None:
        names = ", ".join(entry.name for entry in config.models)
        print(f"{url} ({names})", file=sys.stderr, flush=True)

    serve(config, on_start=started)
    return 0


def build_config(arguments: argparse.Namespace) -> ServerConfig:
    """Return the configuration of the file and the arguments; arguments replace settings of the file.

    Raises
    ------
    OSError, ValueError, TypeError
        As of `ServerConfig.from_file`.
    """
    from cyllama.server.config import environment_keys, parse_bytes, read_key_file
    from cyllama.server.limits import Limits

    config = build_model_config(
        arguments,
        host=arguments.host,
        port=arguments.port,
        allow_pull=arguments.allow_pull,
        metrics=arguments.metrics,
        slots=arguments.slots,
        cors_origins=arguments.cors,
        allow_no_key=arguments.allow_no_key,
        batch_folder=arguments.batch_folder,
    )
    if arguments.preload:
        config = dataclasses.replace(
            config, models=[dataclasses.replace(entry, preload=True) for entry in config.models]
        )
    keys = [*config.api_keys, *environment_keys()]
    if arguments.api_key_file is not None:
        keys += read_key_file(arguments.api_key_file)
    limits: dict[str, Any] = {}
    for item in dataclasses.fields(Limits):
        value = getattr(arguments, f"max_{item.name}")
        if value is not None:
            limits[item.name] = parse_bytes(value, f"--max-{item.name}") if isinstance(value, str) else value
    return dataclasses.replace(config, api_keys=keys, limits=dataclasses.replace(config.limits, **limits))


def build_model_config(arguments: argparse.Namespace, **changes: Unpack[ServerOptions]) -> ServerConfig:
    """Return the configuration of the file and of the arguments about models.

    Parameters
    ----------
    arguments : argparse.Namespace
    **changes
        Fields that replace those of the file; None changes nothing.

    Raises
    ------
    OSError, ValueError, TypeError
        As of `ServerConfig.from_file`.
    """
    from cyllama.server.config import ServerConfig, parse_bytes

    changes["any_name"] = arguments.any_name
    changes["memory"] = None if arguments.memory is None else parse_bytes(arguments.memory, "--memory")
    entries = _model_entries(arguments)
    if arguments.config is None:
        given: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
        return ServerConfig(models=entries, **given)
    config = ServerConfig.from_file(arguments.config, **changes)
    return dataclasses.replace(config, models=[*config.models, *entries])


def _model_entries(arguments: argparse.Namespace) -> list[ModelEntry]:
    """Return the models of the arguments; a file's name without its suffix is the model's name."""
    from cyllama.server.config import ModelEntry

    text = {"n_ctx": arguments.n_ctx, "n_parallel": arguments.n_parallel, "mmproj": arguments.mmproj}
    given: list[tuple[str | None, EngineKind, dict[str, Any]]] = [
        (arguments.model, "llm", {name: value for name, value in text.items() if value is not None}),
        (arguments.embeddings, "llm", {"embedding": True}),
        (arguments.rerank, "llm", {"reranking": True}),
        (arguments.whisper, "whisper", {}),
        (arguments.sd, "sd", {}),
    ]
    return [
        ModelEntry(name=Path(model).stem if Path(model).is_file() else model, kind=kind, model=model, settings=settings)
        for model, kind, settings in given
        if model is not None
    ]
