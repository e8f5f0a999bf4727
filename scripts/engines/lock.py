"""Read and edit the lock file, which contains the origin and the version of each engine."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import FetchError

__all__ = ["ORIGINS", "Engine", "build_record", "edit", "is_local", "read_lock"]

PACKAGE_KEYS = ("package", "version", "filename", "sha256", "size")
ORIGINS = {
    "pypi": PACKAGE_KEYS,
    "npm": PACKAGE_KEYS,
    "git": ("url", "submodules", "sha256"),
    "archive": ("path", "sha256", "size"),
}
COMMON_KEYS = ("tree", "upstream_version", "commit", "ggml")
KINDS: dict[str, type] = {"size": int, "skip": list, "submodules": list}  # all others are strings
NAMES: dict[type, str] = {str: "a string", int: "an integer", list: "a list of strings"}
OPTIONAL_KEYS = {"submodules", "tree", "skip", "upstream", "upstream_version", "commit", "ggml"}


@dataclass(frozen=True)
class Engine:
    """One section of the lock.

    Attributes
    ----------
    name : str
        The name of the section.
    origin : str
        A key of `ORIGINS`, which lists the attributes of each origin.
    target : str
        The folder in thirdparty/.
    package, version, filename : str
        A package of the Python index or the npm registry, and the name of its archive.
    url : str
        A git repository; `commit` is the commit in full.
    submodules : tuple of str
        The submodules of the repository that are fetched.
    path : str
        An archive on this machine; a relative path starts at the folder of the lock.
    sha256 : str
        The hash of the archive; with a git repository, of the unpacked tree (see `trees.tree_sha256`).
    size : int
        Bytes of the archive.
    tree : str
        The folder of the engine below the top folder of the archive or in the repository.
    skip : tuple of str
        Files and folders of the tree that are left out.
    upstream : str
        The GitHub repository of the engine.
    upstream_version, commit, ggml : str
        Upstream's version and commit, and the version of the ggml in the tree.
    """

    name: str
    origin: str
    target: str
    package: str = ""
    version: str = ""
    filename: str = ""
    url: str = ""
    submodules: tuple[str, ...] = ()
    path: str = ""
    sha256: str = ""
    size: int = 0
    tree: str = ""
    skip: tuple[str, ...] = ()
    upstream: str = ""
    upstream_version: str = "unknown"
    commit: str = "unknown"
    ggml: str = "unknown"

    @property
    def source(self) -> str:
        """Return a short name of the origin, without folders of this machine."""
        if self.origin == "git":
            return f"git {Path(self.url).name if is_local(self.url) else self.url}@{self.commit}"
        if self.origin == "archive":
            return f"archive {Path(self.path).name}"
        return f"{'npm ' if self.origin == 'npm' else ''}{self.package} {self.version}"


def is_local(url: str) -> bool:
    """Return whether a git URL is a path on this machine."""
    return url.startswith("file:") or not re.match(r"[\w.+-]+://|[^/]+:", url)


def read_lock(path: Path) -> dict[str, Engine]:
    """Read the lock file.

    Raises
    ------
    FetchError
        It cannot be read, or a key of a section is missing, unknown or of the wrong type.
    """
    try:
        return _parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FetchError(f"the lock {path} cannot be read: {error.strerror}") from error
    except (ValueError, FetchError) as error:  # TOML and UTF-8 errors are ValueErrors
        raise FetchError(f"the lock {path} is not valid: {error}") from error


def _parse(text: str) -> dict[str, Engine]:
    return {name: _engine(name, entry) for name, entry in tomllib.loads(text).items()}


def _engine(name: str, entry: Any) -> Engine:
    if not isinstance(entry, dict):
        raise FetchError(f"{name} is not a section")
    origin = entry.get("origin")
    if origin not in ORIGINS:
        raise FetchError(f"origin of [{name}] is {origin!r}, expected one of {', '.join(ORIGINS)}")
    known = {"origin", "target", "skip", "upstream", *COMMON_KEYS, *ORIGINS[origin]}
    missing, unknown = known - OPTIONAL_KEYS - entry.keys(), entry.keys() - known
    if missing or unknown:
        what = f"lacks {', '.join(sorted(missing))}" if missing else f"has {', '.join(sorted(unknown))}"
        raise FetchError(f"[{name}] {what}, which is wrong for origin {origin!r}")
    values: dict[str, Any] = {}
    for key, value in entry.items():
        kind = KINDS.get(key, str)
        items = value if isinstance(value, list) else []
        if type(value) is not kind or not all(isinstance(item, str) for item in items):
            raise FetchError(f"{key} of [{name}] is {value!r}, expected {NAMES[kind]}")
        values[key] = tuple(items) if kind is list else value
    engine = Engine(name, **values)
    if origin == "git" and not re.fullmatch("[0-9a-f]{40}", engine.commit):
        raise FetchError(f"commit of [{name}] is {engine.commit!r}, expected 40 hexadecimal digits")
    return engine


def edit(text: str, engine: Engine) -> str:
    """Return the text of the lock with the values of one engine; comments and other sections are kept.

    Parameters
    ----------
    text : str
        The lock.
    engine : Engine
        The new values. Keys of other origins are removed.

    Raises
    ------
    FetchError
        The section is missing or has a form that cannot be edited.
    """
    begin = re.search(rf"^\[{re.escape(engine.name)}\][^\n]*\n", text, re.MULTILINE)
    if begin is None:
        raise FetchError(f"the lock has no section [{engine.name}]")
    end = re.compile(r"^\[", re.MULTILINE).search(text, begin.end())
    section = text[begin.end() : end.start() if end else len(text)]
    section += "" if section.endswith("\n") else "\n"
    keys = ("origin", *ORIGINS[engine.origin], *COMMON_KEYS)
    for key in {key for group in ORIGINS.values() for key in group} - {*keys}:
        section = re.sub(rf"{_assignment(key)}[^\n]*\n?", "", section, flags=re.MULTILINE)
    position = 0
    for key in keys:
        value = getattr(engine, key)
        line = f"{key} = {json.dumps(value, ensure_ascii=False)}"
        if found := re.compile(_assignment(key), re.MULTILINE).search(section):
            section = section[: found.start()] + line + section[found.end() :]
            position = found.start() + len(line)
            position = section.find("\n", position) + 1 or len(section)
        elif value != ():
            section = f"{section[:position]}{line}\n{section[position:]}"
            position += len(line) + 1
    edited = text[: begin.end()] + section + (text[end.start() :] if end else "")
    try:
        if _parse(edited).get(engine.name) == engine:
            return edited
    except (ValueError, FetchError):
        pass
    raise FetchError(f"section [{engine.name}] of the lock has a form that cannot be edited; write one key a line")


def _assignment(key: str) -> str:
    """Return a pattern of a key and its value: a string, a number, or a list on one line."""
    return rf'^{key}[ \t]*=[ \t]*(?:"(?:[^"\\\n]|\\.)*"|\d+|\[[^\]\n]*\])'


def build_record(engines: dict[str, Engine]) -> dict[str, dict[str, str]]:
    """Return the record of a build: upstream's version and commit, and the source of each engine."""
    return {
        name: {"version": engine.upstream_version, "commit": engine.commit, "source": engine.source}
        for name, engine in engines.items()
    }
