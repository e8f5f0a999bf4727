"""Every patch has a header that says why it exists; docs/dev/update-an-engine.md describes the form."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from unidiff.patch import PatchSet

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "thirdparty" / "patches"
PATCHES = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.glob("*/*.patch"))
PAGE = ROOT / "docs" / "dev" / "update-an-engine.md"
FIELDS = ["Why", "Without it", "Upstream", "Remove when"]
WIDTH = 100


def split(name: str) -> tuple[str, str]:
    """Return the header and the diff of a patch."""
    header, _, diff = (FOLDER / name).read_bytes().decode("latin-1").partition("\n\n")
    return header, diff


def files_of(text: str) -> list[tuple[str, list[str]]]:
    """Return path and hunks of each file in a diff."""
    return [(file.path, [str(hunk) for hunk in file]) for file in PatchSet(io.StringIO(text))]


def test_finds_patches() -> None:
    assert len({name.partition("/")[0] for name in PATCHES}) == 3


@pytest.mark.parametrize("name", PATCHES)
def test_header_has_all_fields_in_order(name: str) -> None:
    header, diff = split(name)
    assert diff.startswith("--- ")
    fields = [line.partition(": ") for line in header.splitlines() if not line.startswith("  ")]
    assert [field for field, _, _ in fields] == FIELDS
    assert all(text.strip() for _, _, text in fields)
    assert header.isascii() and max(map(len, header.splitlines())) <= WIDTH


@pytest.mark.parametrize("name", PATCHES)
def test_header_does_not_change_the_diff(name: str) -> None:
    header, diff = split(name)
    assert not re.search(r"^(--- |\+\+\+ |@@|diff |\\)", header, re.MULTILINE)
    found = files_of(f"{header}\n\n{diff}")
    assert found and found == files_of(diff)


@pytest.mark.parametrize("name", PATCHES)
def test_header_names_existing_tests(name: str) -> None:
    header, _ = split(name)
    for path, function in re.findall(r"(tests/[\w/]+\.py)(?:::(\w+))?", header):
        assert f"def {function}(" in (ROOT / path).read_text(encoding="utf-8"), f"{path}::{function}"


def test_page_lists_every_patch() -> None:
    rows = re.findall(
        r"^\| ([\w.-]+\.cpp) \| ([\w.-]+\.patch) \| (\d+) \| (?:yes|no): .+ \|$", PAGE.read_text(), re.MULTILINE
    )
    lines = {name: split(name)[1].count("\n") for name in PATCHES}
    assert {f"{engine}/{file}": int(count) for engine, file, count in rows} == lines
    assert len(rows) == len(PATCHES)
