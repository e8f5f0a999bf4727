"""A registry of small models: download or generate a model by name, and keep it in a cache.

>>> from cyllama import models
>>> models.get("smollm2-135m-instruct")        # doctest: +SKIP
PosixPath('.../SmolLM2-135M-Instruct.Q4_1.gguf')
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from cyllama.errors import DownloadError, UnsupportedError
from cyllama.models._cache import cache_folder
from cyllama.models.registry import MODELS, Model

if TYPE_CHECKING:
    from cyllama.models._download import Progress

__all__ = [
    "HUB_PREFIX",
    "Model",
    "cache_folder",
    "cached",
    "check",
    "find",
    "get",
    "installed",
    "list_models",
    "path",
    "remove",
    "resolve",
]

HUB_PREFIX = "hf:"
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
    """Return the path of a model, or of a file with ``hf:``, if it is in the cache; else None.

    Raises
    ------
    ValueError
        There is no such model.
    """
    if not name.startswith(HUB_PREFIX):
        return path(name) if installed(name) else None
    repository, file, revision = _hub_parts(name)
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    found = try_to_load_from_cache(repository, file, revision=revision)
    return Path(found) if isinstance(found, str) else None


def get(name: str, *, progress: Progress | None = None, verify: bool = False) -> Path:
    """Return the path of a model; download or generate it first if it is not in the cache.

    Parameters
    ----------
    name : str
        A name or an alias, or ``hf:organisation/repository/file`` for a file of the Hugging Face hub
        (``hf:organisation/repository@revision/file`` for a revision; needs ``pip install huggingface_hub``).
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
    if name.startswith(HUB_PREFIX):
        return _from_hub(name)
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
        An existing file or folder, or a name for :func:`get`.

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
    return found if isinstance(found, Path) else get(found)


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
    if os.path.exists(name_or_path):
        return Path(name_or_path)
    if not isinstance(name_or_path, str):
        raise FileNotFoundError(f"no such file: {os.fspath(name_or_path)}")
    if name_or_path.startswith(HUB_PREFIX):
        return name_or_path
    try:
        return find(name_or_path).name
    except ValueError as error:
        if os.path.basename(name_or_path) != name_or_path or name_or_path.casefold().endswith(MODEL_SUFFIXES):
            raise FileNotFoundError(f"no such file: {name_or_path}") from None
        raise FileNotFoundError(f"no such file, and {error}") from None


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
    import difflib

    names = [name for model in MODELS for name in (model.name, *model.aliases)]
    near = difflib.get_close_matches(wanted, names, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"expected one of {', '.join(sorted(model.name for model in MODELS))}"


def _from_hub(name: str) -> Path:
    repository, file, revision = _hub_parts(name)
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise UnsupportedError(f"{name} needs huggingface_hub: pip install huggingface_hub") from error
    try:
        found = hf_hub_download(repository, file, revision=revision)
    except (OSError, ValueError) as error:  # base classes of the exceptions of huggingface_hub
        text = " ".join(str(error).split()) or type(error).__name__
        raise DownloadError(f"cannot get {name} from the Hugging Face hub: {text}") from error
    return Path(found)


def _hub_parts(name: str) -> tuple[str, str, str | None]:
    """Return the repository, the file and the revision of a name with ``hf:``."""
    parts = name[len(HUB_PREFIX) :].split("/")
    if len(parts) < 3 or not all(parts):
        raise ValueError(f"name is {name!r}, expected hf:organisation/repository/file")
    repository, _, revision = parts[1].partition("@")
    return f"{parts[0]}/{repository}", "/".join(parts[2:]), revision or None
