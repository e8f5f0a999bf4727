"""scripts/engines with archives on this machine."""

from __future__ import annotations

import io
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from sources.small_engine import MAIN_C, Place, Repository, sha256, sources, tarball

from cyllama.models._archive import top_folder

Sentence = Callable[[], str]


def archive(place: Place, name: str, top: str = "eng-1/") -> Path:
    files = {top + key: text for key, text in sources("1.0").items()}
    path = place.folder / name
    if name.endswith(".zip"):
        with zipfile.ZipFile(path, "w") as out:
            for key, text in files.items():
                out.writestr(key, text)
        return path
    return tarball(path, files)


@pytest.mark.parametrize("name", ["eng.tar.gz", "eng.tgz", "eng.tar.xz", "eng.zip"])
@pytest.mark.parametrize("top", ["eng-1/", ""])
def test_moves_to_archive_and_installs_again(name: str, top: str, place: Place) -> None:
    path = archive(place, name, top)
    assert place.update("--archive", str(path)) == 0
    engine = place.engine()
    assert (engine.origin, engine.path, engine.sha256, engine.package) == ("archive", str(path), sha256(path), "")
    assert (engine.upstream_version, engine.commit) == ("1.0.0", "unknown")
    shutil.rmtree(place.tree)
    assert place.run("eng") == 0
    assert place.read("src/main.c") == MAIN_C
    assert path.exists() and place.cached() == set()


def test_relative_path_starts_at_the_lock(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    archive(place, "eng.tgz")
    monkeypatch.chdir(place.folder)
    assert place.update("--archive", "eng.tgz") == 0
    assert place.engine().path == "../eng.tgz"
    monkeypatch.chdir(place.links)
    shutil.rmtree(place.tree)
    assert place.run("eng") == 0


@pytest.mark.parametrize("format", ["tar.gz", "zip"])
def test_reads_commit_of_archives_made_by_git(format: str, place: Place, repository: Repository) -> None:
    path = place.folder / f"made.{format}"
    repository.git("archive", f"--format={format}", "--prefix=eng-1/", f"--output={path}", "next")
    assert place.update("--archive", str(path)) == 0
    assert place.engine().commit == repository.second


def test_accepts_given_commit_and_version(place: Place) -> None:
    path = archive(place, "eng.zip")
    assert place.update("--archive", str(path), "--commit", "1234567", "--upstream-version", "b5") == 0
    assert (place.engine().commit, place.engine().upstream_version) == ("1234567", "b5")


def test_tree_names_a_folder_of_the_archive(place: Place) -> None:
    path = archive(place, "eng.zip", "top/vendor/eng/")
    assert place.update("--archive", str(path), "--tree", "vendor/eng") == 0
    assert place.engine().tree == "vendor/eng" and place.read("src/main.c") == MAIN_C


@pytest.mark.parametrize("name", ["eng.tgz", "eng.tar.xz", "eng.zip"])
def test_rejects_truncated_archive(name: str, place: Place, sentence: Sentence) -> None:
    assert place.run("eng") == 0
    path = archive(place, name)
    path.write_bytes(path.read_bytes()[:-60])
    before, cached = place.state(), place.cached()
    assert place.update("--archive", str(path)) == 1
    assert name in sentence()
    assert (place.state(), place.cached()) == (before, cached)


def test_rejects_changed_archive(place: Place, sentence: Sentence) -> None:
    path = archive(place, "eng.tgz")
    assert place.update("--archive", str(path)) == 0
    archive(place, "eng.tgz", "other/")
    place.patch()
    before = place.state()
    assert place.run("eng") == 1
    assert str(path) in (text := sentence()) and place.engine().sha256 in text
    assert place.state() == before


def test_rejects_missing_archive_and_other_files(place: Place, sentence: Sentence) -> None:
    text = place.folder / "text.txt"
    text.write_text("text")
    before = place.state()
    for path in (place.folder / "none.tgz", place.folder, text):
        assert place.update("--archive", str(path)) == 1
        assert path.name in sentence()
    assert place.state() == before


def test_rejects_patch_that_does_not_apply(place: Place, sentence: Sentence) -> None:
    place.patch("--- a/none.c\n+++ b/none.c\n@@ -1 +1 @@\n-a\n+b\n")
    path = archive(place, "eng.tgz")
    before = place.state()
    assert place.update("--archive", str(path)) == 1
    assert "01-two.patch" in (said := sentence()) and "none.c" in said
    assert place.state() == before


@pytest.mark.parametrize(
    ("names", "expected"),
    [(["a/b", "a/c/d"], "a"), (["a/b", "c/d"], ""), (["a/b", "c"], ""), (["a"], ""), (["./a/b"], "a"), ([], "")],
)
def test_top_folder(names: list[str], expected: str, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as out:
        for name in names:
            out.addfile(tarfile.TarInfo(name), io.BytesIO())
    assert top_folder(tmp_path / "x.tar") == expected
