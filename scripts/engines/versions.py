"""Read the version and the commit of upstream from a tree and its archive."""

from __future__ import annotations

import re
import tarfile
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

from .lock import Engine
from .origins import member_prefix

__all__ = ["describe"]


def describe(engine: Engine, archive: Path, tree: Path) -> Engine:
    """Return the engine with the versions in its tree and its archive; a version that is missing is ``unknown``."""
    cmake = _text(tree / "CMakeLists.txt")
    return replace(
        engine,
        upstream_version=_project_version(cmake) or _parts(cmake, "LLAMA") or "unknown",
        commit=engine.commit if engine.origin == "git" else _commit(engine, archive) or "unknown",
        ggml=_parts(_text(tree / "ggml" / "CMakeLists.txt"), "GGML") or "unknown",
    )


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _project_version(cmake: str) -> str:
    """Return the version in ``project(NAME VERSION 1.2.3)``."""
    found = re.search(r"^project\([^)]*\bVERSION\s+([\d.]+)", cmake, re.MULTILINE)
    return found[1] if found else ""


def _parts(cmake: str, prefix: str) -> str:
    """Return the version in ``set(PREFIX_VERSION_MAJOR 1)``, ``MINOR`` and ``PATCH``; -dev marks development builds."""
    parts = [re.search(rf"set\({prefix}_VERSION_{part}\s+(\d+)\)", cmake) for part in ("MAJOR", "MINOR", "PATCH")]
    is_dev = re.search(rf'option\({prefix}_BUILD_IS_DEV\s+"[^"]*"\s+ON\)', cmake)
    return ".".join(part[1] for part in parts if part) + ("-dev" if is_dev else "") if all(parts) else ""


def _commit(engine: Engine, archive: Path) -> str:
    """Return upstream's commit from the archive's own header or from the change log of the package."""
    if not engine.tree and (commit := _archived_commit(archive)):
        return commit
    log = _member(engine, archive, "CHANGELOG.md") if engine.version and engine.upstream else ""
    section = re.search(rf"^## \[{re.escape(engine.version)}\](.*?)(?=^## |\Z)", log, re.MULTILINE | re.DOTALL)
    found = re.search(rf"{re.escape(engine.upstream)}@([0-9a-f]{{7,40}})", section[1]) if section else None
    return found[1] if found else ""


def _archived_commit(archive: Path) -> str:
    """Return the commit that ``git archive`` writes into the header of a tar or zip file."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            comment = zipped.comment.decode("ascii", "replace")
    else:
        with tarfile.open(archive) as tarred:
            tarred.next()
            comment = tarred.pax_headers.get("comment", "")
    return comment if re.fullmatch("[0-9a-f]{40}", comment) else ""


def _member(engine: Engine, archive: Path, name: str) -> str:
    """Return the text of a file beside the tree in the archive; empty if there is none."""
    from cyllama.errors import DownloadError
    from cyllama.models._download import extract_member

    with tempfile.TemporaryDirectory() as folder:
        try:
            path = extract_member(archive, member_prefix(replace(engine, tree=name), archive), Path(folder, "member"))
        except DownloadError:
            return ""
        return _text(path)
