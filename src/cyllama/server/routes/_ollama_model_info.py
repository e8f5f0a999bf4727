"""What Ollama's protocol reports about a model: details, capabilities, metadata."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cyllama import models
from cyllama._native._gguf import GGUFContext
from cyllama.errors import CyllamaError
from cyllama.server.config import ModelEntry
from cyllama.server.http.errors import http_error

__all__ = ["THINKING_WORDS", "describe", "show"]

THINKING_WORDS = ("enable_thinking", "reasoning_content", "reasoning_effort", "<think>")
"""Words in the chat templates of models that think."""
INFILL_TOKENS = ("tokenizer.ggml.prefix_token_id", "tokenizer.ggml.fim_pre_token_id")
LONG = 64  # items of an array that is left out of the metadata
HIDDEN = ("general.name", "tokenizer.chat_template")
HASHED = 1 << 20  # bytes at the start of a file that its digest depends on
CACHED = 64  # files


@dataclass(frozen=True)
class _File:
    """The header of a GGUF file."""

    metadata: Mapping[str, Any]
    tensors: tuple[Mapping[str, Any], ...]
    digest: str
    size: int
    modified: float

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", ""))

    def field(self, name: str) -> Any:
        """Return a value of the metadata of the architecture."""
        return self.metadata.get(f"{self.architecture}.{name}")


def describe(entry: ModelEntry) -> dict[str, Any]:
    """Return the size, the date, the digest, the details and the capabilities of a model, as ``/api/tags`` has them.

    The digest is that of the registry; for other files, a digest of the size, the date and the start of the file. A
    model that is not downloaded yet has no date and no details.
    """
    file = _file(entry)
    if file is None:
        known = _registered(entry)
        size, digest = (known.size, known.sha256) if known else (0, "")
        return {"size": size, "digest": digest, "modified_at": _iso(0.0), "details": _details(None)}
    return {
        "size": file.size,
        "digest": file.digest,
        "modified_at": _iso(file.modified),
        "details": _details(file),
        "capabilities": _capabilities(entry, file),
    }


def show(entry: ModelEntry, verbose: bool) -> dict[str, Any]:
    """Return the response of ``/api/show``.

    Parameters
    ----------
    entry : ModelEntry
    verbose : bool
        Include the arrays of the metadata and the tensors.

    Raises
    ------
    HTTPException
        The model is not downloaded yet.
    """
    file = _file(entry)
    if file is None:
        raise http_error(404, f"{entry.name} is not downloaded; pull it or load it first", param="model")
    known = _registered(entry)
    shown = {name: value for name, value in entry.settings.items() if isinstance(value, bool | int | float)}
    parameters = "\n".join(f"{name} {value!r}" for name, value in shown.items())  # texts may be paths of this machine
    licence = known.licence if known else str(file.metadata.get("general.license", ""))
    found = {
        "license": licence,
        "modelfile": f"# the configuration of the model {entry.name}\nFROM {entry.name}\n",
        "parameters": parameters,
        "template": _template(entry, file),
        "details": _details(file),
        "model_info": _metadata(file, verbose),
        "capabilities": _capabilities(entry, file),
        "modified_at": _iso(file.modified),
    }
    return found | ({"tensors": list(file.tensors)} if verbose else {})


def _registered(entry: ModelEntry) -> models.Model | None:
    try:
        return models.find(str(entry.model))
    except ValueError:
        return None


def _file(entry: ModelEntry) -> _File | None:
    """Return the header of a model's file; None if it is not downloaded or not a GGUF file."""
    try:
        found = models.check(entry.model or "")
        path = models.cached(found) if isinstance(found, str) else found
        if path is None:
            return None
        status = path.stat()
        return _read(path, status.st_size, status.st_mtime, _registered_digest(entry))
    except (OSError, CyllamaError, ValueError):
        return None


def _registered_digest(entry: ModelEntry) -> str:
    known = None if isinstance(entry.model, str) and Path(entry.model).exists() else _registered(entry)
    return known.sha256 if known else ""


@functools.lru_cache(CACHED)
def _read(path: Path, size: int, modified: float, digest: str) -> _File:
    with GGUFContext.from_file(path) as file:
        metadata = file.metadata()
        tensors = tuple(
            {"name": info.name, "type": info.type.name, "shape": list(info.shape)} for info in file.tensors()
        )
    if not digest:
        with path.open("rb") as data:
            digest = hashlib.sha256(f"{size} {modified} ".encode() + data.read(HASHED)).hexdigest()
    return _File(metadata, tensors, digest, size, modified)


def _details(file: _File | None) -> dict[str, Any]:
    found: dict[str, Any] = {"parent_model": "", "format": "gguf"}
    if file is None:
        return found | {"family": "", "families": [], "parameter_size": "", "quantization_level": ""}
    from cyllama.llama import FileType

    names = {int(kind): kind.name for kind in FileType}
    more = {"context_length": file.field("context_length"), "embedding_length": file.field("embedding_length")}
    return found | {
        "family": file.architecture,
        "families": [file.architecture],
        "parameter_size": _short(sum(math.prod(tensor["shape"]) for tensor in file.tensors)),
        "quantization_level": names.get(file.metadata.get("general.file_type", -1), "unknown"),
        **{name: value for name, value in more.items() if isinstance(value, int)},
    }


def _short(number: int) -> str:
    """Return a number of parameters such as ``"134.5M"``."""
    for unit, size in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number)


def _template(entry: ModelEntry, file: _File) -> str:
    """Return the chat template: that of the configuration, or that of the file."""
    options = entry.settings.get("options") or {}
    given = entry.settings.get("chat_template") or options.get("chat-template")
    if not given and "chat-template-file" in options:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            given = Path(options["chat-template-file"]).read_text("utf-8")
    return str(given or file.metadata.get("tokenizer.chat_template") or "")


def _capabilities(entry: ModelEntry, file: _File) -> list[str]:
    if entry.task != "chat":
        return ["embedding"] if entry.task == "embeddings" else []
    template = _template(entry, file)
    known = {
        "completion": True,
        "tools": "tools" in template,
        "insert": any(key in file.metadata for key in INFILL_TOKENS),
        "vision": "mmproj" in entry.settings,
        "thinking": any(word in template for word in THINKING_WORDS),
    }
    return [name for name, has in known.items() if has]


def _metadata(file: _File, verbose: bool) -> dict[str, Any]:
    found = {}
    for name, value in file.metadata.items():
        if name in HIDDEN:
            continue
        items = value.tolist() if hasattr(value, "tolist") else value
        found[name] = None if isinstance(items, list | tuple) and len(items) > LONG and not verbose else items
    count = sum(math.prod(tensor["shape"]) for tensor in file.tensors)
    return {name: _finite(value) for name, value in {"general.parameter_count": count, **found}.items()}


def _finite(value: Any) -> Any:
    """Return a value that JSON can express: None for NaN and infinity."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
