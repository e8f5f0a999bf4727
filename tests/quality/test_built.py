"""What check_built.py says beyond test_checks.py: needed libraries, the glibc floor, empty folders, old run paths."""

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
    """One library and one extension module, both right."""
    folder = tmp_path / "cyllama"
    library = link(folder / "lib/libcyllama-a.so", "-Wl,-soname,libcyllama-a.so", text="void a(void) {}\n")
    link(folder / "sd/_core.so", "-Wl,--no-as-needed", library, "-Wl,-rpath,$ORIGIN/../lib")
    return folder


def test_a_right_package(package: Path) -> None:
    done = built(package)
    assert done.returncode == 0, done.stdout
    assert "1 extensions and 1 libraries are right" in done.stdout
    assert "glibc 2." in done.stdout


def test_an_unknown_library_is_found(package: Path, tmp_path: Path) -> None:
    other = link(tmp_path / "libother.so", "-Wl,-soname,libother.so.1")
    link(package / "sd/_core.so", "-Wl,--no-as-needed", other)
    done = built(package)
    assert done.returncode == 1
    assert "needs libother.so.1, which is neither in lib/ nor a system library" in done.stdout


@pytest.mark.parametrize("tags", ["--disable-new-dtags", "--enable-new-dtags"])  # RPATH and RUNPATH
@pytest.mark.parametrize("target", ["sd/_core.so", "lib/libcyllama-a.so"])
def test_a_run_path_is_found(package: Path, tags: str, target: str) -> None:
    soname = "-Wl,-soname,libcyllama-a.so"
    link(package / target, soname, f"-Wl,{tags}", "-Wl,-rpath,$ORIGIN/../../..:/usr/local/lib")
    done = built(package)
    assert done.returncode == 1
    assert "leaves the package" in done.stdout
    assert "'/usr/local/lib' is not relative" in done.stdout


def test_a_library_with_a_public_name_is_found(package: Path) -> None:
    link(package / "lib/libllama.so", "-Wl,-soname,libllama.so")
    done = built(package)
    assert done.returncode == 1
    assert "its name is not private" in done.stdout


def test_a_glibc_that_is_too_new_is_found(package: Path) -> None:
    assert built("--glibc", "2.99", package).returncode == 0
    done = built("--glibc", "2.0", package)
    assert done.returncode == 1
    assert "sd/_core.so: needs glibc 2." in done.stdout


def test_a_folder_that_is_not_built(tmp_path: Path) -> None:
    done = built(tmp_path)
    assert done.returncode == 1
    assert "holds no built package" in done.stdout
