"""scripts/fetch_engines.py on a small engine of our own, and on one real one."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "fetch_engines.py"

MAIN_C = "one\ntwo\nthree\nfour\nfive\nsix\nseven\neight\n"
CHANGELOG = (
    "## [2.0]\n\n- update to org/eng@abcdef123\n- update to org/eng@000000000\n\n## [1.0]\n\n- org/eng@111111111\n"
)
PATCH = """why: two is wrong

--- a/src/main.c
+++ b/src/main.c
@@ -1,4 +1,4 @@
 one
-two
+TWO
 three
 four
@@ -7,2 +7,3 @@
 seven
+between
 eight
--- /dev/null
+++ b/src/new.h
@@ -0,0 +1,2 @@
+first
+last
\\ No newline at end of file
--- a/old.txt
+++ /dev/null
@@ -1 +0,0 @@
-old
"""
LOCK = """# a comment at the top
[eng]
package = "eng-pkg"
version = "1.0" # chosen for a reason
filename = "eng_pkg-1.0.tar.gz"
sha256 = "{sha256}"
size = {size}
tree = "vendor/eng"
target = "eng.cpp"
skip = ["docs"]
upstream = "org/eng"
upstream_version = "0.1.0"
commit = "111111111"
ggml = "0.1.2" # theirs

# about the other one
[other]
package = "other-pkg"
version = "1.0"
filename = "other_pkg-1.0.tar.gz"
sha256 = "00"
size = 1
tree = "x"
target = "other.cpp"
"""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fetch_engines", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fetch_engines"] = module
    spec.loader.exec_module(module)
    return module


def sdist(folder: Path, version: str, main_c: str) -> Path:
    files = {
        "CHANGELOG.md": CHANGELOG,
        "vendor/eng/CMakeLists.txt": f'cmake_minimum_required(VERSION 3.21)\nproject("eng" VERSION {version}.0)\n',
        "vendor/eng/ggml/CMakeLists.txt": "".join(
            f"set(GGML_VERSION_{part} {number})\n" for part, number in (("MAJOR", 0), ("MINOR", 7), ("PATCH", 3))
        ),
        "vendor/eng/src/main.c": main_c,
        "vendor/eng/src/same.c": "same",
        "vendor/eng/old.txt": "old\n",
        "vendor/eng/docs/long.md": "docs",
    }
    path = folder / f"eng_pkg-{version}.tar.gz"
    with tarfile.open(path, "w:gz") as out:
        for name, text in files.items():
            info = tarfile.TarInfo(f"eng_pkg-{version}/{name}")
            info.size = len(text)
            out.addfile(info, io.BytesIO(text.encode()))
    return path


class Place:
    """A lock, a folder of patches, a folder of sdists and a destination."""

    def __init__(self, folder: Path, script: ModuleType) -> None:
        self.folder, self.script = folder, script
        self.links, self.patches, self.trees = folder / "links", folder / "patches" / "eng.cpp", folder / "trees"
        self.links.mkdir()
        self.patches.mkdir(parents=True)
        self.archive = sdist(self.links, "1.0", MAIN_C)
        content = self.archive.read_bytes()
        self.lock = folder / "engines.lock.toml"
        self.lock.write_text(LOCK.format(sha256=hashlib.sha256(content).hexdigest(), size=len(content)))
        self.tree = self.trees / "eng.cpp"

    def run(self, *arguments: str) -> int:
        places = ["--lock", str(self.lock), "--patches", str(self.patches.parent), "--destination", str(self.trees)]
        code = self.script.main([*arguments, *places])
        assert isinstance(code, int)
        return code


@pytest.fixture
def place(tmp_path: Path, script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Place:
    made = Place(tmp_path, script)
    monkeypatch.setenv("CYLLAMA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(made.links))
    return made


def sentence(capsys: pytest.CaptureFixture[str]) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_unpack_patch_and_stamp(place: Place) -> None:
    (place.patches / "01-two.patch").write_text(PATCH)
    assert place.run("eng") == 0
    assert (place.tree / "src" / "main.c").read_text() == MAIN_C.replace("two", "TWO").replace(
        "eight", "between\neight"
    )
    assert (place.tree / "src" / "new.h").read_bytes() == b"first\nlast"
    assert not (place.tree / "old.txt").exists()
    assert not (place.tree / "docs").exists()
    assert place.run("--check", "eng") == 0
    assert [path.name for path in place.trees.iterdir()] == ["eng.cpp"]


def test_a_second_run_does_nothing(place: Place) -> None:
    assert place.run("eng") == 0
    before = place.tree.stat().st_mtime_ns
    for path in (*place.links.iterdir(), *(place.folder / "cache" / "archives").glob("*.gz")):
        path.unlink()
    assert place.run("eng") == 0
    assert place.tree.stat().st_mtime_ns == before


def test_a_second_run_imports_nothing_heavy(place: Place) -> None:
    assert place.run("eng") == 0
    code = (
        "import runpy, sys, time; start = time.perf_counter(); script = runpy.run_path(sys.argv[1])\n"
        "code = script['main'](sys.argv[2:]); took = time.perf_counter() - start\n"
        "assert code == 0 and not {'unearth', 'filelock', 'unidiff', 'cyllama'} & set(sys.modules)\n"
        "print(took)"
    )
    places = ["--lock", str(place.lock), "--patches", str(place.patches.parent), "--destination", str(place.trees)]
    command = [sys.executable, "-c", code, str(SCRIPT), "eng", *places]
    took = [
        float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1]) for _ in "123"
    ]
    assert min(took) < 0.2


def test_a_changed_patch_unpacks_again_and_keeps_the_times_of_the_rest(place: Place) -> None:
    assert place.run("eng") == 0
    for path in place.tree.rglob("*.c"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    (place.patches / "01-two.patch").write_text(PATCH)
    assert place.run("--check", "eng") == 1
    assert place.run("eng") == 0
    assert "TWO" in (place.tree / "src" / "main.c").read_text()
    assert (place.tree / "src" / "main.c").stat().st_mtime > 1_000_000_000
    assert (place.tree / "src" / "same.c").stat().st_mtime == 1_000_000_000


def test_a_patch_that_does_not_apply_is_named_and_leaves_nothing(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    (place.patches / "01-two.patch").write_text(PATCH)
    (place.patches / "02-bad.patch").write_text(
        PATCH.replace(" seven", " 7").split("--- /dev/null")[0].replace("two", "TWO")
    )
    assert place.run("eng") == 1
    assert "02-bad.patch does not apply: src/main.c, hunk 2 of 2 (line 7)" in sentence(capsys)
    assert list(place.trees.iterdir()) == []


def test_a_patch_that_stops_applying_keeps_the_old_tree(place: Place) -> None:
    assert place.run("eng") == 0
    (place.patches / "01-bad.patch").write_text(PATCH.replace("-two", "-deux"))
    assert place.run("eng") == 1
    assert (place.tree / "src" / "main.c").read_text() == MAIN_C
    assert [path.name for path in place.trees.iterdir()] == ["eng.cpp"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (PATCH.replace("src/main.c", "src/none.c"), "src/none.c is not there"),
        (PATCH.replace("src/new.h", "src/same.c"), "src/same.c exists already"),
        (PATCH.replace("src/new.h", "../../new.h"), "outside of the tree"),
        (PATCH.replace("-1 +0,0", "-1,2 +0,0"), "no valid unified diff"),
        ("nothing\n", "changes no file"),
    ],
)
def test_broken_patches(place: Place, text: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    (place.patches / "01-two.patch").write_text(text)
    assert place.run("eng") == 1
    assert said in sentence(capsys)
    assert list(place.trees.iterdir()) == []


def test_a_hunk_may_have_moved_as_a_whole(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "old.txt").write_text("old\n")
    (tmp_path / "src" / "main.c").write_bytes(b"\xff\r\n" + b"zero\n" * 30 + MAIN_C.encode())
    (tmp_path / "p.patch").write_text(PATCH)
    script.apply_patch(tmp_path / "p.patch", tmp_path)
    patched = (tmp_path / "src" / "main.c").read_bytes()
    assert patched.startswith(b"\xff\r\n") and patched.endswith(b"five\nsix\nseven\nbetween\neight\n")


def test_the_projects_own_patches_are_valid(script: ModuleType) -> None:
    targets = {engine.target for engine in script.read_lock(ROOT / "thirdparty" / "engines.lock.toml").values()}
    for folder in (ROOT / "thirdparty" / "patches").iterdir():
        assert folder.name in targets


def test_wrong_hash_and_vanished_package(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.lock.write_text(place.lock.read_text().replace('sha256 = "', 'sha256 = "bad'))
    assert place.run("eng") == 1
    assert "wrong hash: eng_pkg-1.0.tar.gz" in sentence(capsys)
    place.archive.unlink()
    assert place.run("eng") == 1
    assert "package eng-pkg version 1.0: it is no longer on the package index" in sentence(capsys)
    assert not place.tree.exists()


def test_usage(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert place.run("lama") == 1
    assert "no engine 'lama'; the lock has eng, other" in sentence(capsys)
    assert place.run("--check") == 1
    assert "not up to date: eng.cpp, other.cpp; run" in sentence(capsys)
    place.lock.write_text("[eng\n")
    assert place.run() == 1
    assert "not as it should be" in sentence(capsys)


def test_a_tree_of_somebody_else_is_kept(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.tree.mkdir(parents=True)
    (place.tree / "mine").touch()
    assert place.run("eng") == 1
    assert "--force" in sentence(capsys)
    assert (place.tree / "mine").exists()
    assert place.run("eng", "--force") == 0
    assert not (place.tree / "mine").exists()


def test_update_rewrites_one_section_and_keeps_the_comments(place: Place) -> None:
    (place.patches / "01-two.patch").write_text(PATCH)
    assert place.run("eng") == 0
    new = sdist(place.links, "2.0", "zero\n" + MAIN_C).read_bytes()
    before = place.lock.read_text()
    assert place.run("--update", "eng", "2.0") == 0
    assert (place.tree / "src" / "main.c").read_text().startswith("zero\none\nTWO\n")
    changed = {
        '"1.0" # chosen': '"2.0" # chosen',
        "eng_pkg-1.0": "eng_pkg-2.0",
        hashlib.sha256(place.archive.read_bytes()).hexdigest(): hashlib.sha256(new).hexdigest(),
        f"size = {place.archive.stat().st_size}": f"size = {len(new)}",
        '"0.1.0"': '"2.0.0"',
        '"111111111"': '"abcdef123"',
        '"0.1.2" # theirs': '"0.7.3" # theirs',
    }
    for old, now in changed.items():
        before = before.replace(old, now, 1)
    assert place.lock.read_text() == before
    assert place.run("--check", "eng") == 0


def test_an_update_that_fails_changes_nothing(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    (place.patches / "01-two.patch").write_text(PATCH)
    assert place.run("eng") == 0
    before = place.lock.read_text()
    assert place.run("--update", "eng", "3.0") == 1
    assert "package eng-pkg version 3.0" in sentence(capsys)
    sdist(place.links, "2.0", MAIN_C.replace("two", "deux"))
    assert place.run("--update", "eng", "2.0") == 1
    assert "01-two.patch does not apply" in sentence(capsys)
    assert place.lock.read_text() == before
    assert place.run("--check", "eng") == 0


def test_the_lock_of_the_project(script: ModuleType) -> None:
    engines = script.read_lock(ROOT / "thirdparty" / "engines.lock.toml")
    assert list(engines) == ["llama", "whisper", "sd"]
    for engine in engines.values():
        assert len(bytes.fromhex(engine.sha256)) == 32
        assert engine.filename == f"{engine.package}-{engine.version}.tar.gz"


def test_a_real_engine_is_fetched_and_unpacked(script: ModuleType, tmp_path: Path) -> None:
    assert script.main(["whisper", "--destination", str(tmp_path)]) == 0
    engine = script.read_lock(ROOT / "thirdparty" / "engines.lock.toml")["whisper"]
    tree = tmp_path / "whisper.cpp"
    archive = script.Places(tmp_path, tmp_path, tmp_path).archives() / engine.filename
    described = script.describe(engine, archive, tree)
    assert (described.upstream_version, described.ggml) == (engine.upstream_version, engine.ggml)
    for needed in ("include/whisper.h", "models/for-tests-silero-v6.2.0-ggml.bin", "samples/jfk.wav"):
        assert (tree / needed).is_file()
