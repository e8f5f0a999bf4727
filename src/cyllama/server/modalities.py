"""What models accept and return: text, images, audio."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

from cyllama import models
from cyllama._native._gguf import GGUFContext
from cyllama.errors import CyllamaError
from cyllama.server.config import ModelEntry, ModelTask

__all__ = ["architecture"]

MODALITIES: Mapping[ModelTask, tuple[str, str]] = {
    "chat": ("text", "text"),
    "embeddings": ("text", "embeddings"),
    "rerank": ("text", "rerank"),
    "speech": ("audio", "text"),
    "images": ("text", "image"),
}
ENCODERS = {"clip.has_vision_encoder": "image", "clip.has_audio_encoder": "audio"}
CACHED = 64  # files


def architecture(entry: ModelEntry) -> dict[str, list[str]]:
    """Return the kinds of input and output of a model, in the form of llama-server.

    A language model accepts images and audio if its projector has an encoder for them. The header of the projector's
    file is read, so the model need not be loaded.
    """
    accepted, returned = MODALITIES[entry.task]
    projector = entry.settings.get("mmproj")
    more = [] if projector is None else _encoders(projector)
    return {"input_modalities": [accepted, *more], "output_modalities": [returned]}


def _encoders(projector: str | Path) -> list[str]:
    try:
        found = models.check(projector)
        path = models.cached(found) if isinstance(found, str) else found
        return [] if path is None else list(_read(path, path.stat().st_mtime))
    except (OSError, CyllamaError, ValueError):
        return []  # loading the model reports the error


@functools.lru_cache(CACHED)
def _read(path: Path, modified: float) -> tuple[str, ...]:
    with GGUFContext.from_file(path) as file:
        metadata = file.metadata()
    return tuple(kind for name, kind in ENCODERS.items() if metadata.get(name))
