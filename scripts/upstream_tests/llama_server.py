"""What upstream's tests start in the place of llama-server: the same words on the command line, another server.

With ``UPSTREAM_NATIVE`` in the environment that is the native program, else ``cyllama serve``. Models of a hub, which
the tests ask for, become models of `cyllama.models`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import cyllama
from cyllama.llama.options import engine_options
from cyllama.server import ModelEntry, ServerConfig, serve

ROOT = Path(__file__).resolve().parents[2]
# repository (or the file in it): a model of ours
MODELS = {
    "ggml-org/test-model-stories260K": "tiny-random-llama",
    "tinyllamas/stories260K.gguf": "tiny-random-llama",
    "bert-bge-small/ggml-model-f16.gguf": "minilm-l6",
    "jina-reranker-v1-tiny-en/ggml-model-f16.gguf": "tiny-random-reranker",
}
# options of the server, not of a model: how many values follow
OURS = {"--port": 1, "--host": 1, "--api-key": 1, "--cors-origins": 1, "--alias": 1, "--model": 1}
OURS |= {"--hf-repo": 1, "--hf-file": 1, "--offline": 0, "--metrics": 0, "--slots": 0, "--no-slots": 0}
# what needs nothing here: it is always so
ALWAYS = {"--no-ui": 0, "--kv-unified": 0, "--cont-batching": 0}


def main() -> None:
    """Start one of them."""
    words = sys.argv[1:]
    own, rest = divided(words)
    model = own.get("--model") or known(own)
    if os.environ.get("UPSTREAM_NATIVE"):
        program = str(ROOT / "bin" / "llama-server")
        ours = ("--hf-repo", "--hf-file", "--offline")
        kept = [word for option in words_of(words) if option[0] not in ours for word in option]
        os.execv(program, [program, *kept, *([] if "--model" in own else ["--model", model])])
    settings: dict[str, Any] = {"options": {name.lstrip("-"): value for name, value in rest.items()}}
    if "--parallel" in rest and "--kv-unified" not in words:
        settings["options"]["no-kv-unified"] = True
    for flag, name in (("--embedding", "embedding"), ("--reranking", "reranking"), ("--ctx-size", "n_ctx")):
        value = settings["options"].pop(flag.lstrip("-"), None)
        if value is not None:
            settings[name] = int(value) if name == "n_ctx" else value
    names = own.get("--alias", Path(model).stem).split(",")
    entry = ModelEntry(name=names[0], aliases=names[1:], kind="llm", model=model, settings=settings, preload=True)
    serve(
        ServerConfig(
            models=[entry],
            host=own.get("--host", "127.0.0.1"),
            port=int(own.get("--port", "8080")),
            api_keys=[own["--api-key"]] if "--api-key" in own else [],
            cors_origins=[own.get("--cors-origins", "*")],  # llama-server's default
            any_name=True,
            metrics="--metrics" in own,
            slots="--no-slots" not in own,
        )
    )


def words_of(words: list[str]) -> list[list[str]]:
    """Each option with its values."""
    found: list[list[str]] = []
    for word in words:
        if word.startswith("-") and not word.lstrip("-")[:1].isdigit():
            found.append([word])
        else:
            found[-1].append(word)
    return found


def divided(words: list[str]) -> tuple[dict[str, str], dict[str, Any]]:
    """Options of the server, and those of the model."""
    options: Any = engine_options()
    counts = {name: info["values"] for info in options for name in info["names"]}
    own: dict[str, str] = {}
    rest: dict[str, Any] = {}
    for name, *values in words_of(words):
        if name in OURS:
            own[name] = values[0] if values else ""
        elif name not in ALWAYS:
            rest[name] = values[0] if counts.get(name) else True
    return own, rest


def known(own: dict[str, str]) -> str:
    """The file of a model that stands for one of the hub."""
    for asked in (own.get("--hf-file", ""), own.get("--hf-repo", "")):
        if asked in MODELS:
            return str(cyllama.models.get(MODELS[asked]))
    raise SystemExit(f"there is no model here for {own.get('--hf-repo')} {own.get('--hf-file', '')}")


if __name__ == "__main__":
    main()
