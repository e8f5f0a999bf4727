"""scripts/engines --update: other versions of a package, the lock, and upstream's versions."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from engines.update import compare_declarations
from sources.small_engine import MAIN_C, Place, Repository, sdist, sha256, sources, tarball

ROOT = Path(__file__).resolve().parents[2]
Sentence = Callable[[], str]


def test_rewrites_one_section_and_keeps_the_comments(place: Place) -> None:
    place.patch()
    assert place.run("eng") == 0
    new = sdist(place.links, "2.0", "zero\n" + MAIN_C)
    expected = place.lock.read_text()
    assert place.update("--version", "2.0") == 0
    assert place.read("src/main.c").startswith("zero\none\nTWO\n")
    changed = {
        '"1.0" # chosen': '"2.0" # chosen',
        "eng_pkg-1.0": "eng_pkg-2.0",
        sha256(place.archive): sha256(new),
        f"size = {place.archive.stat().st_size}": f"size = {new.stat().st_size}",
        '"0.1.0"': '"2.0.0"',
        '"111111111"': '"abcdef123"',
        '"0.1.2" # theirs': '"0.7.3" # theirs',
    }
    for old, now in changed.items():
        expected = expected.replace(old, now, 1)
    assert place.lock.read_text() == expected
    assert place.run("--check", "eng") == 0
    assert {path.name for path in place.trees.iterdir()} == {"eng.cpp"}


def test_failed_update_changes_nothing(place: Place, sentence: Sentence) -> None:
    place.patch()
    assert place.run("eng") == 0
    sdist(place.links, "2.0", MAIN_C.replace("two", "deux"))
    truncated = sdist(place.links, "4.0")
    truncated.write_bytes(truncated.read_bytes()[:-40])
    before, cached = place.state(), place.cached()
    assert place.update("--version", "3.0") == 1
    assert "eng-pkg" in (text := sentence()) and "3.0" in text
    assert place.update("--version", "4.0") == 1
    assert "eng_pkg-4.0.tar.gz" in sentence()
    assert (place.state(), place.cached()) == (before, cached)
    assert place.update("--version", "2.0") == 1
    assert "01-two.patch" in sentence()
    assert place.state() == before
    assert place.cached() == {*cached, "eng_pkg-2.0.tar.gz"}  # it is not downloaded again
    assert place.run("--check", "eng") == 0


def test_interrupted_update_changes_nothing(place: Place, sentence: Sentence, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    assert place.run("eng") == 0
    sdist(place.links, "2.0")
    before = place.state()
    monkeypatch.setattr("engines.update.compare_declarations", interrupt)
    assert place.update("--version", "2.0") == 130
    sentence()
    assert place.state() == before


def test_rejects_wrong_tree_and_keeps_the_archive(place: Place, sentence: Sentence) -> None:
    sdist(place.links, "2.0")
    before = place.state()
    assert place.update("--version", "2.0", "--tree", "vendor/none") == 1
    assert "vendor/none" in sentence()
    assert (place.state(), place.cached()) == (before, {"eng_pkg-2.0.tar.gz"})


def test_rejects_lock_that_cannot_be_edited(place: Place, sentence: Sentence) -> None:
    assert place.run("eng") == 0
    sdist(place.links, "2.0")
    place.lock.write_text(place.lock.read_text().replace('version = "1.0" # chosen', "version = '1.0' # chosen"))
    before = place.state()
    assert place.update("--version", "2.0") == 1
    assert "[eng]" in sentence()
    assert place.state() == before


def test_given_version_and_commit_override_those_of_the_archive(place: Place) -> None:
    sdist(place.links, "2.0")
    assert place.update("--version", "2.0", "--upstream-version", "b11549", "--commit", "1234567") == 0
    assert (place.engine().upstream_version, place.engine().commit) == ("b11549", "1234567")
    assert place.engine().ggml == "0.7.3"


def test_known_commit_stays_with_the_same_archive(place: Place) -> None:
    new = sdist(place.links, "9.0")  # the change log has no section of 9.0
    assert place.update("--version", "9.0", "--commit", "1234567") == 0
    assert place.update("--version", "9.0") == 0
    assert place.engine().commit == "1234567"
    new.write_bytes(sdist(place.folder, "9.0", "zero\n" + MAIN_C).read_bytes())
    assert place.update("--version", "9.0") == 0
    assert place.engine().commit == "unknown"


@pytest.mark.parametrize(("is_dev", "version"), [("ON", "0.6.0-dev"), ("OFF", "0.6.0")])
def test_reads_version_of_llama_cpp(is_dev: str, version: str, place: Place) -> None:
    parts = "".join(f"set(LLAMA_VERSION_{part} {n})\n" for part, n in (("MAJOR", 0), ("MINOR", 6), ("PATCH", 0)))
    option = f'option(LLAMA_BUILD_IS_DEV "llama: dev build" {is_dev})\n'
    files = {**sources("2.0"), "CMakeLists.txt": f'project("llama.cpp" C CXX)\n{parts}{option}'}
    tarball(place.links / "eng_pkg-2.0.tar.gz", {f"eng_pkg-2.0/vendor/eng/{name}": files[name] for name in files})
    assert place.update("--version", "2.0") == 0
    assert (place.engine().upstream_version, place.engine().commit) == (version, "unknown")


def test_switches_to_another_package(place: Place) -> None:
    files = {f"new_pkg-7.0/thirdparty/eng/{name}": text for name, text in sources("7.0").items()}
    tarball(place.links / "new_pkg-7.0.tar.gz", files)
    assert place.update("--package", "new-pkg", "--version", "7.0", "--tree", "thirdparty/eng") == 0
    engine = place.engine()
    assert (engine.package, engine.tree, engine.upstream_version) == ("new-pkg", "thirdparty/eng", "7.0.0")
    assert place.run("--check", "eng") == 0


def test_switches_from_package_to_git_and_back(place: Place, repository: Repository) -> None:
    place.patch()
    assert place.run("eng") == 0
    before = place.lock.read_text()
    tree = place.read("src/main.c")
    assert place.update("--git", str(repository.folder), "--ref", "next") == 0
    engine = place.engine()
    assert (engine.origin, engine.package, engine.filename, engine.size) == ("git", "", "", 0)
    assert place.read("src/main.c") == "zero\n" + tree
    assert "# a comment at the top" in place.lock.read_text() and '[other]\norigin = "pypi"' in place.lock.read_text()
    back = ("--origin", "pypi", "--package", "eng-pkg", "--version", "1.0", "--tree", "vendor/eng")
    assert place.update(*back) == 0
    assert place.read("src/main.c") == tree
    assert place.run("--check", "eng") == 0
    expected = before.replace(" # chosen for a reason", "").replace('"0.1.0"', '"1.0.0"').replace('"0.1.2"', '"0.7.3"')
    assert place.lock.read_text() == expected


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((), "VERSION"),
        (("--version", "1", "--ref", "x"), "VERSION"),
        (("--git", "x"), "REF"),
        (("--ref", "x"), "GIT"),
        (("--archive", "x", "--package", "p"), "PACKAGE"),
        (("--version", "1", "--submodules", "x"), "SUBMODULES"),
        (("--version", "1", "--origin", "ftp"), "'ftp'"),
        (("--version", "1", "--commit", "main"), "'main'"),
        (("--git", "x", "--ref", "y", "--commit", "1234567"), "COMMIT"),
        (("--git", "https://me:secret@host.invalid/x", "--ref", "y"), "GIT"),
    ],
)
def test_rejects_incomplete_change(arguments: tuple[str, ...], named: str, place: Place, sentence: Sentence) -> None:
    before = place.state()
    assert place.update(*arguments) == 1
    assert named in (text := sentence()) and "secret" not in text
    assert place.state() == before


def test_prints_what_changed_in_the_headers(
    place: Place, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engines.update.compare_declarations", compare_declarations)
    header = '#define API __attribute__ ((visibility ("default")))\nAPI int whisper_first(int a);\n'
    files = {**sources("1.0"), "include/whisper.h": header}
    place.lock.write_text(place.lock.read_text().replace("[eng]", "[whisper]"))
    tarball(place.folder / "one.tar.gz", files)
    tarball(place.folder / "two.tar.gz", {**files, "include/whisper.h": header + "API int whisper_second(int a);\n"})
    assert place.run("--update", "whisper", "--archive", str(place.folder / "one.tar.gz")) == 0
    assert place.run("--update", "whisper", "--archive", str(place.folder / "two.tar.gz")) == 0
    assert "whisper_second" in capfd.readouterr().out


def test_make_passes_only_variables_of_the_command_line(tmp_path: Path) -> None:
    (tmp_path / ".group-build").touch()
    given = ["ENGINE=sd", "GIT=../a folder", "REF=v1", "UPSTREAM_VERSION=1.2"]
    command = ["make", "--dry-run", "--no-print-directory", "--old-file", f"{tmp_path}/.group-build", "update"]
    command += [f"VENV={tmp_path}", *given]
    environment = {**os.environ, "VERSION": "9", "COMMIT": "1234567", "MAKEFLAGS": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    words = shlex.split(done.stdout.strip().splitlines()[-1])
    expected = ["--update", "sd", "--git=../a folder", "--ref=v1", "--upstream-version=1.2"]
    assert words == [f"{tmp_path}/bin/python", "scripts/engines", *expected]
