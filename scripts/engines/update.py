"""Move an engine to another version or origin."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from . import git
from .errors import FetchError
from .lock import Engine, edit, is_local
from .origins import fetch
from .trees import Places, tree_lock, unpack
from .versions import describe

__all__ = ["Change", "update"]

CHECK_DECLARATIONS = Path(__file__).resolve().parents[1] / "check_declarations.py"


@dataclass(frozen=True)
class Change:
    """The options of an update; an option that was not given is ``None``.

    Attributes
    ----------
    version, package, origin : str, optional
        A version of a package, the package, and its origin: ``"pypi"`` or ``"npm"``.
    git, ref, submodules : str, optional
        A repository, a commit, tag or branch in it, and the submodules to fetch, separated by commas.
    archive : str, optional
        An archive on this machine.
    tree : str, optional
        The folder of the engine in the archive or repository.
    upstream_version, commit : str, optional
        Upstream's version and commit, for sources that do not contain them.
    """

    version: str | None = None
    package: str | None = None
    origin: str | None = None
    git: str | None = None
    ref: str | None = None
    submodules: str | None = None
    archive: str | None = None
    tree: str | None = None
    upstream_version: str | None = None
    commit: str | None = None


def update(engine: Engine, change: Change, places: Places, force: bool = False) -> None:
    """Fetch, verify, unpack and patch other sources of an engine, compare the headers, and rewrite the lock.

    A failure leaves the lock and the tree as they were.

    Raises
    ------
    FetchError, cyllama.errors.DownloadError
        The options are incomplete, or the sources cannot be fetched, verified or patched.
    """
    from cyllama.errors import DownloadError
    from cyllama.models._download import locked, sha256_of

    base = places.lock.resolve().parent
    wanted = draft(engine, change, base)
    print(f"{engine.target}: {engine.source} -> {wanted.source} ...", flush=True)
    with locked(tree_lock(engine, places)):
        path = fetch(wanted, places.archives(), base)
        if wanted.origin != "git":
            wanted = replace(wanted, sha256=sha256_of(path), size=path.stat().st_size)
        if wanted.origin in ("pypi", "npm"):
            wanted = replace(wanted, filename=path.name)
        with _new_lock(places.lock) as new_lock:

            def finish(found: Engine, tree: Path) -> Engine:
                nonlocal wanted
                wanted = complete(engine, found, change, describe(found, path, tree))
                new_lock.write_text(edit(places.lock.read_text(encoding="utf-8"), wanted), encoding="utf-8")
                compare_declarations(engine, places.target(engine), tree)
                return wanted

            try:
                unpack(wanted, path, places, force, finish)
            except DownloadError:
                if wanted.origin != "archive" and _is_damaged(path):
                    path.unlink(missing_ok=True)
                raise
            os.replace(new_lock, places.lock)
    print(
        f"{engine.target}: now {wanted.source}, upstream {wanted.upstream_version} (commit {wanted.commit}), "
        f"ggml {wanted.ggml}; the lock is rewritten",
        flush=True,
    )


def _is_damaged(archive: Path) -> bool:
    from cyllama.errors import DownloadError
    from cyllama.models._download import top_folder

    try:
        top_folder(archive)
    except DownloadError:
        return True
    return False


@contextlib.contextmanager
def _new_lock(lock: Path) -> Iterator[Path]:
    """Yield the path of a file beside the lock, which is removed unless it was renamed."""
    path = lock.with_name(f"{lock.name}.new")
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def draft(engine: Engine, change: Change, base: Path) -> Engine:
    """Return the engine with its new origin and without a hash.

    Parameters
    ----------
    engine : Engine
        The current engine.
    change : Change
        The options of the update.
    base : pathlib.Path
        The folder of the lock.

    Raises
    ------
    FetchError
        The options do not name exactly one origin, or git does not find the commit.
    """
    commit = change.commit
    if commit is not None and not re.fullmatch("[0-9a-f]{7,40}", commit):
        raise FetchError(f"COMMIT is {commit!r}, expected 7 to 40 hexadecimal digits")
    by_git = change.git is not None or change.ref is not None
    if by_git + (change.archive is not None) + (change.version is not None) != 1:
        raise FetchError(f"an update of {engine.name} needs exactly one of VERSION, REF (with GIT) and ARCHIVE")
    if change.version is None and (change.package is not None or change.origin is not None):
        raise FetchError("PACKAGE and ORIGIN need VERSION")
    blank = replace(engine, package="", version="", filename="", url="", submodules=(), path="", sha256="", size=0)
    if by_git:
        return _from_git(engine, blank, change, base)
    if change.submodules is not None:
        raise FetchError("SUBMODULES needs GIT or REF")
    if change.archive is not None:
        tree = _given(change.tree, engine.tree if engine.origin == "archive" else "")
        return replace(blank, origin="archive", path=_from_base(change.archive, base), tree=tree)
    origin, package = _given(change.origin, engine.origin), _given(change.package, engine.package)
    if origin not in ("pypi", "npm"):
        what = f"ORIGIN is {origin!r}" if change.origin else f"{engine.name} comes from {engine.source}"
        raise FetchError(f"{what}: VERSION needs ORIGIN=pypi or ORIGIN=npm, and PACKAGE")
    if not package:
        raise FetchError(f"PACKAGE is missing: {engine.name} comes from {engine.source}")
    tree = _given(change.tree, engine.tree)
    return replace(blank, origin=origin, package=package, version=change.version or "", tree=tree)


def _from_git(engine: Engine, blank: Engine, change: Change, base: Path) -> Engine:
    if change.commit is not None:
        raise FetchError("COMMIT and REF were both given: with GIT, the commit is that of REF")
    if change.ref is None:
        raise FetchError("REF is missing: GIT needs a commit, a tag or a branch")
    if change.git is None and engine.origin != "git":
        raise FetchError(f"GIT is missing: {engine.name} comes from {engine.source}")
    url = _given(change.git, engine.url)
    if re.match(r"[\w.+-]+://[^/@]*:[^/@]*@", url):
        raise FetchError("GIT holds a password, which the lock would publish; leave it to git's credential helpers")
    url = _from_base(url, base) if change.git and is_local(url) and "://" not in url else url
    names = engine.submodules if change.submodules is None else filter(None, change.submodules.split(","))
    commit, tag = git.resolve(url, change.ref, base)
    tree = _given(change.tree, engine.tree if engine.origin == "git" else "")
    # the name of a tag is upstream's own name of the version
    version = re.sub(r"^v(?=\d)", "", tag) or "unknown"
    new = replace(blank, origin="git", url=url, submodules=tuple(names), tree=tree)
    return replace(new, commit=commit, upstream_version=version)


def _given(value: str | None, default: str) -> str:
    return default if value is None else value


def _from_base(path: str, base: Path) -> str:
    """Return a path as the lock has it: a relative one starts at the folder of the lock."""
    return path if os.path.isabs(path) else os.path.relpath(path, base)


def complete(old: Engine, new: Engine, change: Change, described: Engine) -> Engine:
    """Return the new engine with upstream's version and commit.

    A given value has precedence over the name of a git tag, and that over a value read from the tree. If there is none,
    the value in the lock is kept if it belongs to the same source.
    """
    is_same = (old.origin, old.sha256) == (new.origin, new.sha256)
    kept = old if is_same else Engine(old.name, old.origin, old.target)
    tag = new.upstream_version if new.origin == "git" else "unknown"
    return replace(
        new,
        upstream_version=_first(change.upstream_version, tag, described.upstream_version, kept.upstream_version),
        commit=_first(change.commit, described.commit, kept.commit),
        ggml=_first(described.ggml, kept.ggml),
    )


def _first(*values: str | None) -> str:
    """Return the first value that is known."""
    return next((value for value in values if value not in (None, "unknown")), None) or "unknown"


def compare_declarations(engine: Engine, old: Path, new: Path) -> None:
    """Print which functions appeared, vanished or changed in the headers."""
    if old.is_dir():
        command = [sys.executable, str(CHECK_DECLARATIONS), "--diff", str(old), str(new), "--engine", engine.name]
        subprocess.run(command, check=False)
