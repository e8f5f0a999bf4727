"""scripts/engines: applying patches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from engines.patches import apply_patch
from sources.small_engine import MAIN_C, PATCH, Place

Sentence = Callable[[], str]


def test_rejects_patch_that_does_not_apply(place: Place, sentence: Sentence) -> None:
    place.patch()
    bad = PATCH.replace(" seven", " 7").split("--- /dev/null")[0].replace("two", "TWO")
    place.patch(bad, "02-bad.patch")
    before = place.state()
    assert place.run("eng") == 1
    text = sentence()
    assert "02-bad.patch" in text and "src/main.c" in text and "hunk 2" in text
    assert place.state() == before


def test_failed_patch_keeps_the_old_tree(place: Place, sentence: Sentence) -> None:
    assert place.run("eng") == 0
    place.patch(PATCH.replace("-two", "-deux"))
    before = place.state()
    assert place.run("eng") == 1
    assert "01-two.patch" in sentence()
    assert place.state() == before


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (PATCH.replace("src/main.c", "src/none.c"), "src/none.c"),
        (PATCH.replace("src/new.h", "src/same.c"), "src/same.c"),
        (PATCH.replace("src/new.h", "../../new.h"), "../../new.h"),
        (PATCH.replace("-1 +0,0", "-1,2 +0,0"), "01-two.patch"),
        ("nothing\n", "01-two.patch"),
    ],
)
def test_rejects_broken_patch(text: str, named: str, place: Place, sentence: Sentence) -> None:
    place.patch(text)
    before = place.state()
    assert place.run("eng") == 1
    assert named in sentence()
    assert place.state() == before


def test_applies_hunk_at_another_line(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "old.txt").write_text("old\n")
    (tmp_path / "src" / "main.c").write_bytes(b"\xff\r\n" + b"zero\n" * 30 + MAIN_C.encode())
    (tmp_path / "p.patch").write_text(PATCH)
    apply_patch(tmp_path / "p.patch", tmp_path)
    patched = (tmp_path / "src" / "main.c").read_bytes()
    assert patched.startswith(b"\xff\r\n") and patched.endswith(b"five\nsix\nseven\nbetween\neight\n")
