"""scripts/engines: unpacking what the lock names."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from engines.cli import main
from engines.lock import build_record, read_lock
from engines.trees import Places, tree_sha256
from engines.versions import describe
from sources.small_engine import LOCK, MAIN_C, Place

ROOT = Path(__file__).resolve().parents[2]
PROJECT_LOCK = ROOT / "thirdparty" / "engines.lock.toml"
Sentence = Callable[[], str]


def test_unpacks_patches_and_stamps(place: Place) -> None:
    place.patch()
    assert place.run("eng") == 0
    assert place.read("src/main.c") == MAIN_C.replace("two", "TWO").replace("eight", "between\neight")
    assert (place.tree / "src" / "new.h").read_bytes() == b"first\nlast"
    assert not (place.tree / "old.txt").exists()
    assert not (place.tree / "docs").exists()
    assert place.run("--check", "eng") == 0
    assert [path.name for path in place.trees.iterdir()] == ["eng.cpp"]


def test_second_run_changes_nothing(place: Place) -> None:
    assert place.run("eng") == 0
    before = place.tree.stat().st_mtime_ns
    for path in (*place.links.iterdir(), *place.cache.glob("*.gz")):
        path.unlink()
    assert place.run("eng") == 0
    assert place.tree.stat().st_mtime_ns == before


def test_second_run_imports_no_library(place: Place) -> None:
    assert place.run("eng") == 0
    code = (
        "import sys, time; start = time.perf_counter(); sys.path.insert(0, sys.argv[1])\n"
        "from engines.cli import main; code = main(sys.argv[2:]); took = time.perf_counter() - start\n"
        "assert code == 0 and not {'unearth', 'filelock', 'unidiff', 'cyllama'} & set(sys.modules)\n"
        "print(took)"
    )
    command = [sys.executable, "-c", code, str(ROOT / "scripts"), *place.arguments("eng")]
    took = [
        float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]) for _ in "123"
    ]
    assert min(took) < 0.3


@pytest.mark.parametrize("how", [[str(ROOT / "scripts" / "engines")], ["-m", "engines"]])
def test_runs_as_a_folder_and_as_a_module(how: list[str], place: Place) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "scripts")}
    command = [sys.executable, *how, *place.arguments("--check", "eng")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1 and "eng.cpp" in done.stderr and done.stderr.count("\n") == 1


def test_changed_patch_keeps_the_times_of_other_files(place: Place) -> None:
    assert place.run("eng") == 0
    for path in place.tree.rglob("*.c"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    place.patch()
    assert place.run("--check", "eng") == 1
    assert place.run("eng") == 0
    assert "TWO" in place.read("src/main.c")
    assert (place.tree / "src" / "main.c").stat().st_mtime > 1_000_000_000
    assert (place.tree / "src" / "same.c").stat().st_mtime == 1_000_000_000


def test_rejects_wrong_hash(place: Place, sentence: Sentence) -> None:
    place.lock.write_text(place.lock.read_text().replace('sha256 = "', 'sha256 = "bad'))
    before = place.state()
    assert place.run("eng") == 1
    assert "eng_pkg-1.0.tar.gz" in (text := sentence()) and place.engine().sha256 in text
    assert (place.state(), place.cached()) == (before, set())


def test_names_missing_package(place: Place, sentence: Sentence) -> None:
    place.archive.unlink()
    before = place.state()
    assert place.run("eng") == 1
    assert "eng-pkg" in (text := sentence()) and "1.0" in text
    assert (place.state(), place.cached()) == (before, set())


def test_rejects_truncated_archive(place: Place, sentence: Sentence) -> None:
    place.archive.write_bytes(place.archive.read_bytes()[:300])
    before = place.state()
    assert place.run("eng") == 1
    assert "eng_pkg-1.0.tar.gz" in (text := sentence()) and f"{place.engine().size:,}" in text
    assert place.state() == before
    assert place.cached() == {"eng_pkg-1.0.tar.gz.part"}  # the download continues from there


def test_rejects_archive_without_the_tree(place: Place, sentence: Sentence) -> None:
    place.lock.write_text(place.lock.read_text().replace("vendor/eng", "vendor/none"))
    assert place.run("eng") == 1
    assert "vendor/none" in sentence()
    place.lock.write_text(place.lock.read_text().replace("vendor/none", "vendor"))
    assert place.run("eng") == 1
    assert "'vendor'" in sentence()
    assert list(place.trees.iterdir()) == []


def test_rejects_unknown_engine(place: Place, sentence: Sentence) -> None:
    assert place.run("lama") == 1
    assert "'lama'" in (text := sentence()) and "eng, other" in text


def test_check_lists_what_is_not_up_to_date(place: Place, sentence: Sentence) -> None:
    assert place.run("--check") == 1
    assert "eng.cpp, other.cpp" in sentence()


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("[eng]", "[eng", "line 2"),
        ('origin = "pypi"\npackage = "eng-pkg"', 'origin = "ftp"\npackage = "eng-pkg"', "'ftp'"),
        ('origin = "pypi"\npackage = "eng-pkg"', 'package = "eng-pkg"', "origin of [eng]"),
        ('filename = "eng_pkg-1.0.tar.gz"\n', "", "filename"),
        ('target = "eng.cpp"', 'target = "eng.cpp"\nurl = "x"', "url"),
        ('skip = ["docs"]', 'skip = "docs"', "'docs'"),
        ('skip = ["docs"]', "skip = [1]", "skip of [eng]"),
        ('version = "1.0"', "version = 1.0", "version of [eng]"),
        ('origin = "pypi"\npackage = "eng-pkg"', 'origin = "git"\nurl = "x"', "filename"),
    ],
)
def test_rejects_invalid_lock(old: str, new: str, named: str, place: Place, sentence: Sentence) -> None:
    text = place.lock.read_text()
    assert old in text
    place.lock.write_text(text.replace(old, new, 1))
    assert place.run() == 1
    assert named in (said := sentence()) and str(place.lock) in said


def test_rejects_short_commit_of_git(place: Place, sentence: Sentence) -> None:
    place.lock.write_text('[eng]\norigin = "git"\ntarget = "e"\nurl = "u"\nsha256 = "0"\ncommit = "abcdef1"\n')
    assert place.run() == 1
    assert "'abcdef1'" in sentence()


def test_keeps_foreign_tree(place: Place, sentence: Sentence) -> None:
    place.tree.mkdir(parents=True)
    (place.tree / "mine").touch()
    assert place.run("eng") == 1
    assert "--force" in (text := sentence()) and str(place.tree) in text
    assert (place.tree / "mine").exists()
    assert place.run("eng", "--force") == 0
    assert not (place.tree / "mine").exists()


def test_interruption_leaves_nothing(place: Place, sentence: Sentence, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    place.patch()
    before = place.state()
    monkeypatch.setattr("engines.trees.apply_patch", interrupt)
    assert place.run("eng") == 130
    sentence()
    assert place.state() == before


def test_tree_hash_covers_names_modes_links_and_contents(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "b").mkdir(parents=True)
    (tree / "b" / "run").write_bytes(b"run")
    (tree / "a.txt").write_bytes(b"text")
    (tree / "link").symlink_to("b")
    seen = [tree_sha256(tree)]
    records = [("f", b"text", "a.txt"), ("f", b"run", "b/run"), ("l", b"b", "link")]
    text = "".join(f"{mode} {hashlib.sha256(content).hexdigest()} {name}\0" for mode, content, name in records)
    assert seen[0] == hashlib.sha256(text.encode()).hexdigest()
    (tree / "empty").mkdir()
    os.utime(tree / "a.txt", (1, 1))
    assert tree_sha256(tree) == seen[0]
    (tree / "b" / "run").chmod(0o755)
    seen.append(tree_sha256(tree))
    (tree / "a.txt").write_bytes(b"TEXT")
    seen.append(tree_sha256(tree))
    (tree / "link").unlink()
    (tree / "link").symlink_to("b/run")
    seen.append(tree_sha256(tree))
    (tree / "a.txt").rename(tree / "c.txt")
    seen.append(tree_sha256(tree))
    assert len(set(seen)) == 5


def test_build_record_names_upstream_and_source(tmp_path: Path) -> None:
    lock = tmp_path / "lock.toml"
    lock.write_text(LOCK.format(sha256="0", size=1))
    assert build_record(read_lock(lock)) == {
        "eng": {"version": "0.1.0", "commit": "111111111", "source": "eng-pkg 1.0"},
        "other": {"version": "unknown", "commit": "unknown", "source": "other-pkg 1.0"},
    }
    common = '\ntarget = "e"\nsha256 = "0"\ncommit = "' + "a" * 40 + '"\n'
    origins = {
        'origin = "npm"\npackage = "p"\nversion = "1"\nfilename = "p-1.tgz"\nsize = 1': "npm p 1",
        'origin = "git"\nurl = "https://host.invalid/org/eng"': f"git https://host.invalid/org/eng@{'a' * 40}",
        'origin = "git"\nurl = "../folder/eng"': f"git eng@{'a' * 40}",
        'origin = "archive"\npath = "../folder/eng.zip"\nsize = 1': "archive eng.zip",
    }
    for text, source in origins.items():
        lock.write_text(f"[eng]\n{text}{common}")
        assert build_record(read_lock(lock))["eng"]["source"] == source


def test_lock_of_the_project_is_complete() -> None:
    engines = read_lock(PROJECT_LOCK)
    assert list(engines) == ["llama", "whisper", "sd"]
    for engine in engines.values():
        assert len(bytes.fromhex(engine.sha256)) == 32
        assert "unknown" not in (engine.upstream_version, engine.ggml)


def test_patches_of_the_project_belong_to_engines() -> None:
    targets = {engine.target for engine in read_lock(PROJECT_LOCK).values()}
    assert {folder.name for folder in (ROOT / "thirdparty" / "patches").iterdir()} <= targets


def test_fetches_and_unpacks_a_real_engine(tmp_path: Path) -> None:
    assert main(["whisper", "--destination", str(tmp_path)]) == 0
    engine = read_lock(PROJECT_LOCK)["whisper"]
    tree = tmp_path / "whisper.cpp"
    described = describe(engine, Places(tmp_path, tmp_path, tmp_path).archives() / engine.filename, tree)
    assert (described.upstream_version, described.ggml) == (engine.upstream_version, engine.ggml)
    for needed in ("include/whisper.h", "include/parakeet.h", "models/generate-parakeet-test-model.py"):
        assert (tree / needed).is_file()
