"""Models of a local Ollama store: ``ollama:NAME`` and ``ollama:NAME:TAG``."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from cyllama._paths import expanded
from cyllama.errors import UnsupportedError

__all__ = ["OLLAMA_PREFIX", "OllamaModel", "ollama_model", "ollama_models", "ollama_store"]

OLLAMA_PREFIX = "ollama:"
PART = re.compile(r"[A-Za-z0-9][\w.-]*")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
LAYER = "application/vnd.ollama.image."
MAX_MANIFEST = 1 << 20  # bytes
SERVICE = Path("/usr/share/ollama/.ollama/models")  # of Ollama as a service


@dataclass(frozen=True)
class OllamaModel:
    """A model of the store.

    Attributes
    ----------
    name : str
        The name with the tag.
    path : pathlib.Path
        The GGUF file.
    projector : pathlib.Path or None
        The projector of a multimodal model.
    size : int
        Bytes of both.
    """

    name: str
    path: Path
    projector: Path | None
    size: int


def ollama_store() -> Path:
    """Return the folder of the store, which may not exist: ``OLLAMA_MODELS``, or Ollama's default."""
    chosen = os.environ.get("OLLAMA_MODELS")
    if chosen:
        return expanded(chosen)
    own = Path.home() / ".ollama" / "models"
    return SERVICE if sys.platform == "linux" and not own.is_dir() and SERVICE.is_dir() else own


def ollama_models() -> list[OllamaModel]:
    """Return all models of the store that can be read."""
    root = ollama_store() / "manifests"
    found = []
    for path in sorted(root.glob("**/*")):
        if path.is_file():
            parts = path.relative_to(root).parts
            try:
                found.append(_read(_shown(parts), path))
            except (OSError, ValueError, UnsupportedError):
                continue
    return found


def ollama_model(name: str) -> OllamaModel:
    """Return a model of the store.

    Parameters
    ----------
    name : str
        ``ollama:llama3.2``, ``ollama:llama3.2:1b``, ``ollama:user/model``; the default tag is ``latest``.

    Raises
    ------
    ValueError
        The name is not one of Ollama.
    FileNotFoundError
        There is no store, or no such model in it.
    UnsupportedError
        The model is not one GGUF file with an optional projector.
    """
    *folders, last = name.removeprefix(OLLAMA_PREFIX).split("/")
    model, _, tag = last.partition(":")
    parts = [*folders, model, tag or "latest"]
    if not all(PART.fullmatch(part) for part in parts):
        raise ValueError(f"name is {name!r}, expected ollama:NAME or ollama:NAME:TAG")
    root = ollama_store()
    if not (root / "manifests").is_dir():
        raise FileNotFoundError(f"there is no Ollama store in {root}; set OLLAMA_MODELS to its folder")
    inside = parts if len(parts) > 2 else ["library", *parts]
    candidates = [root.joinpath("manifests", *inside), *sorted(root.glob("/".join(["manifests", "*", *inside])))]
    for path in candidates:
        if path.is_file():
            return _read(name, path)
    raise FileNotFoundError(f"there is no model {name!r} in the Ollama store {root}; {_suggestion(parts)}")


def _suggestion(parts: list[str]) -> str:
    import difflib

    names = [model.name for model in ollama_models()]
    near = difflib.get_close_matches(OLLAMA_PREFIX + ":".join(parts[-2:]), names, n=1, cutoff=0.5)
    if near:
        return f"did you mean {near[0]}?"
    return f"expected one of {', '.join(names)}" if names else f"to fetch it: ollama pull {parts[-2]}:{parts[-1]}"


def _shown(parts: tuple[str, ...]) -> str:
    """Return the name of a manifest: host, namespace, model and tag, without what Ollama leaves out."""
    *folders, model, tag = parts
    kept = folders[2:] if folders[1:2] == ["library"] else folders[1:] if len(folders) == 2 else folders
    return OLLAMA_PREFIX + "/".join([*kept, model]) + ("" if tag == "latest" else f":{tag}")


def _read(name: str, manifest: Path) -> OllamaModel:
    """Return the files of a manifest."""
    if manifest.stat().st_size > MAX_MANIFEST:
        raise ValueError(f"{manifest} has more than {MAX_MANIFEST} bytes, expected a manifest of Ollama")
    data = json.loads(manifest.read_text(encoding="utf-8"))
    layers = data.get("layers") if isinstance(data, dict) else None
    if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
        raise ValueError(f"{manifest} is not a manifest of Ollama")
    files: dict[str, list[Path]] = {}
    for layer in layers:
        kind, digest = str(layer.get("mediaType", "")), str(layer.get("digest", ""))
        if kind.startswith(LAYER) and DIGEST.fullmatch(digest):
            blob = manifest.parents[_depth(manifest)] / "blobs" / digest.replace(":", "-")
            files.setdefault(kind.removeprefix(LAYER), []).append(blob)
    weights, projectors = files.get("model", []), files.get("projector", [])
    if "adapter" in files:
        raise UnsupportedError(f"{name} is an adapter on another model; load that model, and the adapter with loras=")
    if len(weights) != 1 or len(projectors) > 1:
        raise UnsupportedError(
            f"{name} has {len(weights)} files of weights, expected one; use a model of one GGUF file"
        )
    for path in (*weights, *projectors):
        if not path.is_file():
            raise FileNotFoundError(f"{path} of {name} is missing; to fetch it again: ollama pull {name[7:]}")
    size = sum(path.stat().st_size for path in (*weights, *projectors))
    return OllamaModel(name, weights[0], projectors[0] if projectors else None, size)


def _depth(manifest: Path) -> int:
    """Return the number of folders between a manifest and the store."""
    return next(i for i, folder in enumerate(manifest.parents) if folder.name == "manifests") + 1
