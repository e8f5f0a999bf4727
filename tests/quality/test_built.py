"""check_built.py beyond test_checks.py: modules, needed libraries, the glibc version, empty folders, run paths."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "check_built.py"


def built(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def link(target: Path, *flags: object, text: str = "void PyInit__core(void) {}\n") -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    source = target.with_suffix(".c")
    source.write_text(text)
    subprocess.run(["cc", "-shared", "-fPIC", source, *flags, "-o", target], check=True)
    source.unlink()
    return target


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Return a valid package with one library and one shared object with one module."""
    folder = tmp_path / "cyllama"
    library = link(folder / "lib/libcyllama-a.so", "-Wl,-soname,libcyllama-a.so", text="void a(void) {}\n")
    link(folder / "sd/_core.so", "-Wl,--no-as-needed", library, "-Wl,-rpath,$ORIGIN/../lib")
    (folder / "lib/modules.txt").write_text("sd _core.so _core\n")
    return folder


def test_accepts_a_valid_package(package: Path) -> None:
    done = built(package)
    assert done.returncode == 0, done.stdout
    assert "1 shared objects with 1 modules, and 1 libraries are right" in done.stdout
    assert "glibc 2." in done.stdout


def test_rejects_an_unknown_library(package: Path, tmp_path: Path) -> None:
    other = link(tmp_path / "libother.so", "-Wl,-soname,libother.so.1")
    link(package / "sd/_core.so", "-Wl,--no-as-needed", other)
    done = built(package)
    assert done.returncode == 1
    assert "needs libother.so.1, which is neither in lib/ nor a system library" in done.stdout


@pytest.mark.parametrize("tags", ["--disable-new-dtags", "--enable-new-dtags"])  # RPATH and RUNPATH
@pytest.mark.parametrize("target", ["sd/_core.so", "lib/libcyllama-a.so"])
def test_rejects_run_paths_outside_the_package(package: Path, tags: str, target: str) -> None:
    soname = "-Wl,-soname,libcyllama-a.so"
    link(package / target, soname, f"-Wl,{tags}", "-Wl,-rpath,$ORIGIN/../../..:/usr/local/lib")
    done = built(package)
    assert done.returncode == 1
    assert "leaves the package" in done.stdout
    assert "'/usr/local/lib' is not relative" in done.stdout


def test_rejects_a_library_with_a_public_name(package: Path) -> None:
    link(package / "lib/libllama.so", "-Wl,-soname,libllama.so")
    done = built(package)
    assert done.returncode == 1
    assert "its name is not private" in done.stdout


def test_rejects_a_newer_glibc(package: Path) -> None:
    assert built("--glibc", "2.99", package).returncode == 0
    done = built("--glibc", "2.0", package)
    assert done.returncode == 1
    assert "sd/_core.so: needs glibc 2." in done.stdout


def test_rejects_a_folder_that_is_not_built(tmp_path: Path) -> None:
    done = built(tmp_path)
    assert done.returncode == 1
    assert "contains no built package" in done.stdout


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", "sd/_core.so: is not in lib/modules.txt"),
        ("sd _core.so _core _tools\n", "exports PyInit_* of ['_core'], expected ['_core', '_tools']"),
        ("sd _core.so\n", "exports PyInit_* of ['_core'], expected []"),
        ("sd _core.so _core\nllama _llama.so _model\n", "llama/_llama.so: in lib/modules.txt, but not built"),
    ],
)
def test_rejects_modules_that_differ_from_the_table(package: Path, table: str, message: str) -> None:
    (package / "lib/modules.txt").write_text(table)
    done = built(package)
    assert done.returncode == 1
    assert message in done.stdout
