"""Unpack and patch the trees of the engines."""

from __future__ import annotations

import filecmp
import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from .errors import FetchError
from .lock import Engine
from .origins import fetch, member_prefix
from .patches import apply_patch

__all__ = ["Places", "install", "is_current", "tree_lock", "tree_sha256", "unpack"]

STAMP = ".cyllama-stamp"


@dataclass(frozen=True)
class Places:
    """The files and folders that the commands use."""

    lock: Path
    patches: Path
    destination: Path
    cache: Path | None = None

    def patch_files(self, engine: Engine) -> list[Path]:
        """Return the patches of an engine in their order."""
        return sorted((self.patches / engine.target).glob("*.patch"))

    def target(self, engine: Engine) -> Path:
        """Return the folder of the tree of an engine."""
        return self.destination / engine.target

    def archives(self) -> Path:
        """Return the folder of the downloaded archives."""
        from cyllama.models._cache import cache_folder

        return self.cache or cache_folder("archives")


def stamp_of(engine: Engine, places: Places) -> str:
    """Return a hash of the source, the skipped files, and the names and contents of the patches."""
    source = (engine.sha256, engine.commit) if engine.origin == "git" else (engine.sha256,)
    digest = hashlib.sha256("\n".join((*source, engine.tree, *engine.skip)).encode())
    for patch in places.patch_files(engine):
        digest.update(f"\n{patch.name}\n".encode() + patch.read_bytes())
    return digest.hexdigest()


def is_current(engine: Engine, places: Places) -> bool:
    """Return whether the tree of an engine matches the lock and the patches."""
    try:
        return (places.target(engine) / STAMP).read_text(encoding="ascii").strip() == stamp_of(engine, places)
    except OSError:
        return False


def tree_sha256(tree: Path) -> str:
    """Return the SHA-256 of a folder.

    It is the hash of one record ``mode SP hash SP name NUL`` for each file and symbolic link, in the order of the names
    as bytes. The mode is ``f``, ``x`` (executable) or ``l`` (link). The hash is the SHA-256, in hexadecimal, of the
    content or of the target of the link. The name is relative to the folder, with slashes. Owners, times and empty
    folders do not count.
    """
    entries: dict[bytes, bytes] = {}
    for folder, folders, files in os.walk(tree):
        for path in [Path(folder, name) for name in (*folders, *files)]:
            if path.is_symlink():
                mode, content = b"l", os.fsencode(os.readlink(path))
            elif path.is_file():
                mode, content = b"x" if path.stat().st_mode & 0o100 else b"f", path.read_bytes()
            else:
                continue
            entries[os.fsencode(path.relative_to(tree).as_posix())] = mode + b" " + _sha256(content)
    return hashlib.sha256(b"".join(b"%s %s\0" % (entries[name], name) for name in sorted(entries))).hexdigest()


def _sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def tree_lock(engine: Engine, places: Places) -> Path:
    """Return the path whose lock (`cyllama.models._download.locked`) protects the tree of an engine."""
    return places.archives() / f"{engine.target}.tree"


def unpack(
    engine: Engine,
    archive: Path,
    places: Places,
    force: bool = False,
    finish: Callable[[Engine, Path], Engine] | None = None,
) -> None:
    """Unpack and patch the tree of an engine and move it to its folder; a failure changes nothing.

    Parameters
    ----------
    engine : Engine
        The engine. An empty hash is not checked.
    archive : pathlib.Path
        The fetched archive.
    places : Places
        The folders.
    force : bool
        Replace a tree that this program did not make.
    finish : callable, optional
        Called with the engine, including its hash, and the patched temporary tree before that is moved; returns the
        engine that the tree belongs to.

    Raises
    ------
    FetchError, cyllama.errors.DownloadError
        The archive is damaged, its tree has a wrong hash, a patch does not apply, or the disk is full.
    """
    from cyllama.models._download import safe_extract

    target = places.target(engine)
    if target.exists() and not (target / STAMP).exists() and not force:
        raise FetchError(f"{target} was not made by this program; move it away, or replace it with --force")

    def complete(tree: Path) -> None:
        found = _verify(engine, archive, tree)
        if not (tree / "CMakeLists.txt").is_file():
            raise FetchError(f"TREE is {engine.tree!r}, which holds no CMakeLists.txt in {engine.source}")
        for patch in places.patch_files(engine):
            apply_patch(patch, tree)
        if finish is not None:
            found = finish(found, tree)
        (tree / STAMP).write_text(stamp_of(found, places) + "\n", encoding="ascii")
        keep_times(tree, target)

    # the hash of a git tree covers the skipped files
    skip = () if engine.origin == "git" else engine.skip
    safe_extract(archive, member_prefix(engine, archive), target, skip=skip, finish=complete)


def _verify(engine: Engine, archive: Path, tree: Path) -> Engine:
    """Check the hash of a tree from git, then remove the skipped files; return the engine with the hash."""
    if engine.origin != "git":
        return engine
    actual = tree_sha256(tree)
    if engine.sha256 and actual != engine.sha256:
        archive.unlink(missing_ok=True)
        raise FetchError(f"wrong hash: the tree of {engine.source} has SHA-256 {actual}, expected {engine.sha256}")
    for path in (tree / name for name in engine.skip):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return replace(engine, sha256=actual)


def keep_times(new: Path, old: Path) -> None:
    """Copy the times of unchanged files from the old tree, so that they are not compiled again."""
    for folder, _, names in os.walk(new):
        for name in names:
            path = Path(folder, name)
            before = old / path.relative_to(new)
            if before.is_file() and not path.is_symlink() and filecmp.cmp(path, before, shallow=False):
                times = before.stat()
                os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def install(engine: Engine, places: Places, force: bool = False) -> None:
    """Unpack and patch the tree of an engine unless it is up to date."""
    if is_current(engine, places):
        print(f"{engine.target}: up to date ({engine.source})", flush=True)
        return
    from cyllama.models._download import locked

    size = f" ({engine.size / 1e6:.1f} MB)" if engine.size else ""
    print(f"{engine.target}: from {engine.source}{size} ...", flush=True)
    with locked(tree_lock(engine, places)):
        if not is_current(engine, places):
            unpack(engine, fetch(engine, places.archives(), places.lock.parent), places, force)
    count = len(places.patch_files(engine))
    print(f"{engine.target}: unpacked, {count} {'patch' if count == 1 else 'patches'} applied", flush=True)
