"""A plug-in for the package ``llm``: local models for its command line and its Python API.

``llm -m cyllama/smollm2-135m-instruct "Please tell me the capital of France."``; ``llm cyllama add NAME FILE`` adds a
GGUF file under a name. Conversations, system prompts, schemas, options and embeddings are supported.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import click
import llm
from llm.models import EmbeddingModel
from pydantic import Field

from cyllama import models
from cyllama._native.files import atomic_path
from cyllama.errors import CyllamaError

__all__ = ["CyllamaChat", "CyllamaEmbedding"]

EMBEDDING = "minilm-l6"
CHAT_MARK = "instruct"  # part of the names of chat models


class CyllamaChat(llm.Model):
    """A chat model; it is loaded on first use and kept."""

    can_stream = True
    supports_schema = True

    class Options(llm.Options):
        """Options of a request."""

        max_tokens: int | None = Field(default=None, ge=1, description="the most generated tokens")
        temperature: float | None = Field(default=None, ge=0, description="0 selects the most likely token")
        top_p: float | None = Field(default=None, ge=0, le=1, description="cumulative probability of sampled tokens")
        top_k: int | None = Field(default=None, ge=0, description="number of sampled tokens")
        seed: int | None = Field(default=None, description="seed of the random numbers")
        n_ctx: int | None = Field(default=None, ge=1, description="tokens of the context; reloads the model")

    def __init__(self, name: str, source: str) -> None:
        self.model_id = f"cyllama/{name}"
        self.source = source

    def execute(
        self, prompt: llm.Prompt, stream: bool, response: llm.Response, conversation: llm.Conversation | None = None
    ) -> Iterator[str]:
        """Yield the chunks of the response."""
        from cyllama.pipelines import default_pool

        fields = {name: value for name, value in prompt.options.model_dump().items() if value is not None}
        settings = {"n_ctx": fields.pop("n_ctx")} if "n_ctx" in fields else {}
        if prompt.schema:
            fields["response_format"] = prompt.schema
        try:
            with (
                default_pool().use("llm", self.source, **settings) as model,
                model.chat(_messages(prompt), stream=True, **fields) as parts,
            ):
                for part in parts:
                    if part.text:
                        yield part.text
                    if timings := part.get("timings"):
                        used = timings.prompt_n + timings.get("cache_n", 0)
                        response.set_usage(input=used, output=timings.predicted_n)
        except (CyllamaError, OSError, ValueError) as error:
            raise llm.ModelError(str(error)) from error


class CyllamaEmbedding(EmbeddingModel):
    """An embedding model."""

    def __init__(self, name: str) -> None:
        self.model_id = f"cyllama/{name}"
        self.source = name

    def embed_batch(self, items: Iterable[str | bytes], *, key: str | None = None) -> Iterator[list[float]]:
        """Yield the vectors of texts; the key is ignored."""
        from cyllama.pipelines import default_pool

        with default_pool().use("llm", self.source, embedding=True) as model:
            for vector in model.embed([str(item) for item in items]):
                yield [float(value) for value in vector]


def _messages(prompt: llm.Prompt) -> list[dict[str, str]]:
    return [
        {"role": message.role, "content": "".join(getattr(part, "text", "") for part in message.parts)}
        for message in prompt.messages
    ]


def _added_path() -> Path:
    folder: Path = llm.user_dir()  # type: ignore[no-untyped-call]
    return folder / "cyllama.json"


def _added() -> dict[str, str]:
    """Return the added files by name."""
    path = _added_path()
    found: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    return found


@llm.hookimpl
def register_models(register: Callable[..., None]) -> None:
    """Register the chat models of cyllama.models and the added files."""
    registry = models.list_models()
    known = {model.name: model.name for model in registry if model.engine == "llama" and CHAT_MARK in model.name}
    for name, source in {**known, **_added()}.items():
        register(CyllamaChat(name, source))


@llm.hookimpl
def register_embedding_models(register: Callable[..., None]) -> None:
    """Register the embedding model."""
    register(CyllamaEmbedding(EMBEDDING))


@llm.hookimpl
def register_commands(cli: click.Group) -> None:
    """Add ``llm cyllama``."""

    @cli.group(name="cyllama")
    def group() -> None:
        """Local models of cyllama."""

    @group.command()
    @click.argument("name")
    @click.argument("file", type=click.Path(exists=True, dir_okay=False, resolve_path=True))
    def add(name: str, file: str) -> None:
        """Add a GGUF file as cyllama/NAME."""
        with atomic_path(_added_path()) as temporary:
            Path(temporary).write_text(json.dumps({**_added(), name: file}, indent=1))
        click.echo(f"cyllama/{name}")
