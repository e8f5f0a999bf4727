"""Fetch the archive of an engine from its origin."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from . import git, npm
from .errors import FetchError
from .lock import Engine

if TYPE_CHECKING:
    from cyllama.models._download import Archive, Progress

__all__ = ["fetch", "local_archive", "member_prefix"]


def fetch(engine: Engine, cache: Path, base: Path) -> Path:
    """Return the path of the archive of an engine; fetch it if it is not on this machine.

    Parameters
    ----------
    engine : Engine
        The engine. An empty hash is not checked; an empty file name is looked up.
    cache : pathlib.Path
        The folder of the downloaded archives.
    base : pathlib.Path
        The folder that relative paths of the lock start at.

    Raises
    ------
    FetchError, cyllama.errors.DownloadError
        The archive cannot be fetched or has a wrong hash.
    """
    if engine.origin == "archive":
        return local_archive(engine, base)
    if engine.origin == "git":
        return _git_archive(engine, cache, base)
    from cyllama.models._download import fetch as fetch_from_index

    with _progress(engine) as progress:
        if engine.origin == "npm":
            return npm.fetch(package_archive(engine), cache, progress)
        return fetch_from_index(package_archive(engine), cache, progress=progress)


def package_archive(engine: Engine) -> Archive:
    """Return the archive of an engine's package."""
    from cyllama.models._download import Archive

    return Archive(engine.package, engine.version, engine.filename, engine.sha256, engine.size)


@contextlib.contextmanager
def _progress(engine: Engine) -> Iterator[Progress | None]:
    """Yield a progress line where standard error is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from cyllama._progress import ByteProgress

    line = ByteProgress(sys.stderr, engine.filename or engine.source)
    try:
        yield line
    finally:
        line.close(keep=True)


def local_archive(engine: Engine, base: Path) -> Path:
    """Return the path of an archive on this machine after checking its hash."""
    from cyllama.models._download import sha256_of

    path = base / engine.path
    try:
        actual = sha256_of(path)
    except OSError as error:
        raise FetchError(f"the archive {path} cannot be read: {error.strerror}") from error
    if engine.sha256 and actual != engine.sha256:
        raise FetchError(f"wrong hash: {path} has SHA-256 {actual}, expected {engine.sha256}")
    return path


def _git_archive(engine: Engine, cache: Path, base: Path) -> Path:
    """Return a tar file of a commit; its tree is verified when it is unpacked."""
    from cyllama.models._download import locked

    parts = "".join(f"+{name.replace('/', '_')}" for name in engine.submodules)
    path = cache / f"{engine.target}-{engine.commit}{parts}.tar"
    with locked(path):
        if not path.is_file():
            git.export(engine.url, engine.commit, engine.submodules, path, base)
    return path


def member_prefix(engine: Engine, archive: Path) -> str:
    """Return the folder of the tree inside the archive."""
    from cyllama.models._download import top_folder

    if engine.origin == "git":
        return engine.tree
    is_sdist = engine.origin == "pypi"
    top = archive.name.removesuffix(".tar.gz").removesuffix(".zip") if is_sdist else top_folder(archive)
    return "/".join(filter(None, (top, engine.tree)))
