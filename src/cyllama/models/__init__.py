"""Models by name: small ones of a registry, those of the Hugging Face hub, and those of a local Ollama store.

>>> from cyllama import models
>>> models.get("smollm2-135m-instruct")        # doctest: +SKIP
PosixPath('.../SmolLM2-135M-Instruct.Q4_1.gguf')
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

from cyllama._paths import expanded, similar_file, unset_variables
from cyllama.errors import DownloadError
from cyllama.models._cache import cache_folder
from cyllama.models._file_kinds import load_errors
from cyllama.models._hub import HUB_PREFIX, hub_cached, hub_file, hub_models, hub_name_of, hub_projector, is_repository
from cyllama.models._ollama import OLLAMA_PREFIX, OllamaModel, ollama_model, ollama_models, ollama_store
from cyllama.models.known_names import WHISPER_MODELS, where_to_get
from cyllama.models.registry import MODELS, Model

if TYPE_CHECKING:
    from cyllama.models._download import Progress

__all__ = [
    "HUB_PREFIX",
    "OLLAMA_PREFIX",
    "Model",
    "OllamaModel",
    "cache_folder",
    "cached",
    "check",
    "find",
    "get",
    "hub_models",
    "installed",
    "list_models",
    "load_errors",
    "ollama_models",
    "ollama_store",
    "path",
    "projector",
    "remove",
    "resolve",
]

MODEL_SUFFIXES = (".gguf", ".bin", ".safetensors", ".ckpt", ".pth", ".pt", ".onnx")


def list_models() -> tuple[Model, ...]:
    """Return all models of the registry."""
    return MODELS


def find(name: str) -> Model:
    """Return a model of the registry.

    Parameters
    ----------
    name : str
        A name or an alias, case-insensitive.

    Raises
    ------
    ValueError
        There is no such model; the message has the closest names.
    """
    wanted = name.casefold()
    for model in MODELS:
        if wanted in (model.name, *model.aliases):
            return model
    raise ValueError(f"there is no model {name!r}; {_suggestion(wanted)}")


def path(name: str) -> Path:
    """Return the path of a model in the cache, without downloading it.

    Raises
    ------
    ValueError
        There is no such model.
    """
    return _path(find(name))


def installed(name: str) -> bool:
    """Return whether a model is in the cache.

    Raises
    ------
    ValueError
        There is no such model.
    """
    return _present(find(name))


def cached(name: str) -> Path | None:
    """Return the path of a model, also of one with ``hf:`` or ``ollama:``, if it is on this machine; else None.

    Raises
    ------
    ValueError
        There is no such model.
    """
    if name.startswith(HUB_PREFIX):
        return hub_cached(name)
    if name.startswith(OLLAMA_PREFIX):
        try:
            return ollama_model(name).path
        except OSError:
            return None
    return path(name) if installed(name) else None


def get(name: str, *, progress: Progress | None = None, verify: bool = False) -> Path:
    """Return the path of a model; download or generate it first if it is not in the cache.

    Parameters
    ----------
    name : str
        A name or an alias of the registry, or a name of Whisper's models such as ``"large-v3"``; or
        ``hf:organisation/repository:QUANTIZATION`` or ``hf:organisation/repository/file`` for the Hugging Face hub
        (``repository@revision`` for a revision; needs ``pip install huggingface_hub``); or ``ollama:NAME`` for a model
        of a local Ollama store. Without a quantization and a file, it is Q4_K_M if the repository has it.
    progress : callable, optional
        Called with (bytes done, bytes in total) of each download. By default, a terminal shows a progress line.
    verify : bool
        Also check the hash of a cached file, and replace the file if the hash is wrong.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    ValueError
        There is no such model.
    DownloadError
        The model cannot be downloaded or generated.
    UnsupportedError
        ``hf:`` without huggingface_hub.

    Notes
    -----
    Thread safety: may be called from several threads and processes at once.
    """
    if name.startswith(OLLAMA_PREFIX):
        return ollama_model(name).path
    if name.startswith(HUB_PREFIX):
        return hub_file(name, progress)
    if is_repository(name):
        return hub_file(f"{HUB_PREFIX}{name}", progress)
    if name.casefold() in WHISPER_MODELS and not _is_known(name):
        return hub_file(WHISPER_MODELS[name.casefold()], progress)
    model = find(name)
    if _present(model) and not verify:
        return _path(model)
    from cyllama.models._install import make

    return make(model, _path(model), progress=progress)


def resolve(name_or_path: str | os.PathLike[str]) -> Path:
    """Return the path of a model file.

    Parameters
    ----------
    name_or_path : str or path
        An existing file or folder (``~`` and environment variables are replaced), a name for :func:`get`, or
        ``organisation/repository`` with or without ``:QUANTIZATION``, as with ``hf:``.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    TypeError
        The argument is neither a path nor a string.
    FileNotFoundError
        There is neither such a file nor such a model.
    DownloadError
        The model cannot be downloaded.
    UnsupportedError
        ``hf:`` without huggingface_hub.
    """
    found = check(name_or_path)
    if isinstance(found, Path):
        return found
    try:
        return get(found)
    except DownloadError as error:
        if found == f"{HUB_PREFIX}{name_or_path}":  # it may have been meant as a path
            raise FileNotFoundError(f"no such file: {name_or_path}, and {error}") from error
        raise


def projector(name_or_path: str | os.PathLike[str]) -> Path | None:
    """Return the projector that belongs to a multimodal model of the hub or of an Ollama store; else None.

    A name of one file, such as ``hf:organisation/repository/file.gguf``, has none.

    Raises
    ------
    DownloadError
    """
    if not isinstance(name_or_path, str):
        return None
    found = check(name_or_path)
    if isinstance(found, str) and found.startswith(HUB_PREFIX):
        return hub_projector(found)
    if isinstance(found, str) and found.startswith(OLLAMA_PREFIX):
        return ollama_model(found).projector
    return None


def check(name_or_path: str | os.PathLike[str]) -> Path | str:
    """Check that a file or a model exists, without downloading it.

    Parameters
    ----------
    name_or_path : str or path
        See `resolve`.

    Returns
    -------
    pathlib.Path or str
        The file, or the name for `get`.

    Raises
    ------
    TypeError, FileNotFoundError
        See `resolve`. A name with ``hf:`` is not looked up.
    """
    if not isinstance(name_or_path, str | os.PathLike):  # os.path.exists accepts file descriptors
        raise TypeError(f"model is {name_or_path!r}, expected a path or the name of a model")
    path = expanded(name_or_path)
    if path.exists():
        return path
    if not isinstance(name_or_path, str) or unset_variables(name_or_path):
        raise FileNotFoundError(_no_file(name_or_path, path))
    if name_or_path.startswith(HUB_PREFIX):
        return hub_name_of(name_or_path).name
    if name_or_path.startswith(OLLAMA_PREFIX):
        return ollama_model(name_or_path).name
    if name_or_path.casefold() in WHISPER_MODELS and not _is_known(name_or_path):
        return WHISPER_MODELS[name_or_path.casefold()]
    if is_repository(name_or_path) and not name_or_path.casefold().endswith(MODEL_SUFFIXES):
        if importlib.util.find_spec("huggingface_hub") is None:
            needs = "if it is a repository of the Hugging Face hub: pip install huggingface_hub"
            raise FileNotFoundError(f"{_no_file(name_or_path, path)}; {needs}")
        return f"{HUB_PREFIX}{name_or_path}"
    try:
        return find(name_or_path).name
    except ValueError as error:
        if os.path.basename(name_or_path) != name_or_path or name_or_path.casefold().endswith(MODEL_SUFFIXES):
            raise FileNotFoundError(_no_file(name_or_path, path)) from None
        raise FileNotFoundError(f"no such file, and {error}") from None


def _no_file(given: str | os.PathLike[str], path: Path) -> str:
    """Return the message about a missing file."""
    text = os.fspath(given)
    unset = unset_variables(text)
    if unset:
        return f"no such file: {text}; the environment variable {unset[0]} is not set"
    if text.startswith(("http://", "https://")):
        host, *parts = text.partition("?")[0].split("/")[2:]
        hub = "/".join(part for part in (*parts[:2], *parts[4:]) if part)
        other = f", or give {HUB_PREFIX}{hub}" if host == "huggingface.co" and hub else " and give its path"
        return f"{text} is a URL, which is not opened; download the file{other}"
    text = text if os.fspath(path) == text else f"{text} ({path})"
    near = similar_file(path, MODEL_SUFFIXES)
    hint = "`cyllama models list` has names of models" if near is None else f"did you mean {near}?"
    return f"no such file: {text}; {hint}"


def _is_known(name: str) -> bool:
    wanted = name.casefold()
    return any(wanted in (model.name, *model.aliases) for model in MODELS)


def remove(name: str) -> bool:
    """Remove a model from the cache, with the archives and incomplete downloads that no other model uses.

    Returns
    -------
    bool
        Whether a file was removed.

    Raises
    ------
    ValueError
        There is no such model.
    OSError
        A file cannot be removed, such as in a cache that cannot be written.
    """
    from cyllama.models._install import discard

    model = find(name)
    return discard(model, _path(model))


def _path(model: Model) -> Path:
    """Return the path of a model; its folder has the start of the pinned hash, so a new version is another file."""
    pin = model.sha256 or "-".join(archive.sha256[:8] for archive in model.archives)
    return cache_folder("models") / f"{model.name}-{pin[:8]}" / model.file


def _present(model: Model) -> bool:
    """Return whether a model is in the cache; comparing the size suffices, as files are renamed after a hash check."""
    try:
        return _path(model).stat().st_size == model.size or (not model.sha256 and _path(model).is_file())
    except OSError:
        return False


def _suggestion(wanted: str) -> str:
    """Return what to do about an unknown name."""
    import difflib

    names = [name for model in MODELS for name in (model.name, *model.aliases)]
    where = where_to_get(wanted)
    near = difflib.get_close_matches(wanted, names, n=3, cutoff=0.8 if where else 0.6)
    if near:
        return f"did you mean {' or '.join(near)}?"
    if where is None:
        return "expected a file, a name of `cyllama models list`, hf:organisation/repository or ollama:NAME"
    try:
        stored = ollama_model(f"{OLLAMA_PREFIX}{wanted}").name
    except (OSError, ValueError):
        return where
    return f"{where}; and in the Ollama store: {stored}"
