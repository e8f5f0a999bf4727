"""Apply unified diffs to a tree."""

from __future__ import annotations

import io
import typing
from pathlib import Path

from .errors import FetchError

if typing.TYPE_CHECKING:
    from unidiff.patch import PatchedFile

__all__ = ["apply_patch"]


def apply_patch(patch: Path, tree: Path) -> None:
    """Apply a unified diff, with names such as ``a/src/main.c`` and ``b/src/main.c``, to a tree.

    A hunk may be at another line than the diff says; every line of its context must match.

    Raises
    ------
    FetchError
        The diff is not valid or does not apply. The tree may be patched in part.
    """
    try:
        from unidiff.errors import UnidiffParseError
        from unidiff.patch import PatchSet
    except ImportError as error:
        raise FetchError("patching needs the library unidiff: pip install unidiff") from error
    try:
        files = PatchSet(io.StringIO(patch.read_bytes().decode("latin-1")))
    except UnidiffParseError as error:
        raise FetchError(f"patch {patch.name} is not a valid unified diff: {error}") from error
    if not files:
        raise FetchError(f"patch {patch.name} changes no file")
    for file in files:
        _patch_file(patch, file, tree)


def _patch_file(patch: Path, file: PatchedFile, tree: Path) -> None:
    name = file.path
    path = tree / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise FetchError(f"patch {patch.name} names a file outside the tree: {name}")
    if not len(file) or file.is_rename or file.is_binary_file:
        raise FetchError(f"patch {patch.name}: {name} is renamed, binary or without a hunk, which is not supported")
    creates, deletes = file.source_file == "/dev/null", file.target_file == "/dev/null"
    if creates == path.exists():
        raise FetchError(f"patch {patch.name} does not apply: {name} {'already exists' if creates else 'is missing'}")
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
    """Return the lines of a hunk before and after the change."""
    before: list[str] = []
    after: list[str] = []
    sides: list[list[str]] = []
    for line in hunk:
        if line.line_type == "\\":  # the line before has no line feed at its end
            for side in sides:
                side[-1] = side[-1].rstrip("\n")
            continue
        sides = {"-": [before], "+": [after]}.get(line.line_type, [before, after])
        for side in sides:
            side.append(line.value)
    return before, after


def _locate(lines: list[str], before: list[str], wanted: int, lowest: int) -> int | None:
    """Return the index of `before` in `lines` that is nearest to `wanted` and not below `lowest`."""
    last = len(lines) - len(before)
    if not before:
        return wanted if lowest <= wanted <= last else None
    places = sorted(range(lowest, last + 1), key=lambda start: abs(start - wanted))
    return next((start for start in places if lines[start : start + len(before)] == before), None)
