"""Install a model of the registry in the cache: download, extract or convert, check the hash, rename."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from cyllama._progress import ByteProgress
from cyllama.errors import DownloadError
from cyllama.models._archive import full_disk
from cyllama.models._cache import cache_folder
from cyllama.models._download import Archive, Progress, extract_member, fetch, locked, sha256_of
from cyllama.models.registry import MODELS, Model

__all__ = ["discard", "make"]

Converter = Callable[[Sequence[Path], Path], None]
THIRDPARTY = Path(__file__).resolve().parents[3] / "thirdparty"


def make(model: Model, destination: Path, *, progress: Progress | None = None) -> Path:
    """Write a model to `destination` and return that path.

    Parameters
    ----------
    model : Model
        A model of the registry.
    destination : path
        The file. An existing file with the right hash is kept, also in a cache that cannot be written; else the file is
        replaced after a hash check. Its folder is the model's alone: what interrupted calls left there is removed.
    progress : callable, optional
        Called with (bytes done, bytes in total) of each download; by default, a terminal shows a progress line.

    Raises
    ------
    DownloadError
        The model cannot be downloaded or converted, or has another hash.
    """
    if _is_complete(model, destination):
        return destination
    with locked(destination.parent):
        if _is_complete(model, destination):  # made by another process in the meantime
            return destination
        try:
            destination.parent.mkdir(parents=True, exist_ok=True)
            for left in destination.parent.iterdir():
                if left != destination:
                    _remove(left)
        except OSError as error:
            raise full_disk(error, model.file, destination.parent) from error
        handle, name = tempfile.mkstemp(prefix=f".{model.file}-", dir=destination.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            _fill(model, temporary, progress)
            _check(model, temporary)
            temporary.chmod(0o644)
            os.replace(temporary, destination)
        except DownloadError:
            raise
        except OSError as error:
            raise full_disk(error, model.file, destination.parent) from error
        finally:
            temporary.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                destination.parent.rmdir()  # only if it is empty
    return destination


def discard(model: Model, destination: Path) -> bool:
    """Remove a model from the cache, and the archives that no other model uses; return whether a file was removed.

    Raises
    ------
    OSError
        A file cannot be removed; names it or its folder.
    """
    found = _remove(destination.parent)
    shared = {archive for other in MODELS if other is not model for archive in other.archives}
    for archive in set(model.archives) - shared:
        for name in (archive.filename, f"{archive.filename}.part"):
            found = _remove(cache_folder("archives") / name) or found
    return found


def _remove(path: Path) -> bool:
    """Remove a file, a link or a folder; return whether it was there."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    return True


def _is_complete(model: Model, path: Path) -> bool:
    return path.is_file() and (not model.sha256 or sha256_of(path) == model.sha256)


def _fill(model: Model, temporary: Path, progress: Progress | None) -> None:
    """Write the model's file; remove the archives that were not in the cache before."""
    local = THIRDPARTY / model.checkout
    if model.checkout and local.is_file() and sha256_of(local) == model.sha256:
        shutil.copyfile(local, temporary)
        return
    folder = cache_folder("archives")
    fetched: list[Path] = []
    inputs: list[Path] = []
    for archive in model.archives:
        new = not (folder / archive.filename).exists()
        inputs.append(_fetch(archive, progress))
        if new:
            fetched.append(inputs[-1])
    if model.member:
        extract_member(inputs[0], model.member, temporary)
    else:
        from cyllama.models import get

        inputs += [get(name, progress=progress) for name in model.requires]
        _converter(model.convert)(inputs, temporary)
    for path in fetched:
        path.unlink(missing_ok=True)


def _fetch(archive: Archive, progress: Progress | None) -> Path:
    if progress is not None or not sys.stderr.isatty():
        return fetch(archive, progress=progress)
    line = ByteProgress(sys.stderr, archive.filename)
    try:
        return fetch(archive, progress=line)
    finally:
        line.close(keep=True)


def _converter(name: str) -> Converter:
    module, _, function = name.rpartition(".")
    converter: Converter = getattr(importlib.import_module(f"{__package__}.{module}"), function)
    return converter


def _check(model: Model, path: Path) -> None:
    if not model.sha256:
        return
    actual = sha256_of(path)
    if actual != model.sha256:
        raise DownloadError(f"wrong hash: {model.file} of {model.name} has SHA-256 {actual}, expected {model.sha256}")
