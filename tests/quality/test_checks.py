"""The static checks pass, and each of them can fail."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def check(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a copy of the sources, to be changed."""
    ignore = shutil.ignore_patterns("*.so", "lib", "__pycache__")
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=ignore)
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "unwrapped.toml", tmp_path / "scripts")
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_layout_holds() -> None:
    done = check("check_layout.py")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("whisper/bad.py", "from cyllama.llama import LlamaModel\n", "whisper must not import cyllama.llama"),
        (
            "errors.py",
            "from cyllama import log\nfrom cyllama.models import get\n",
            "errors must not import cyllama.models",
        ),
        ("cli/bad.py", "from cyllama.llama._model import LlamaModel\n", "cli must use the public API"),
        ("models/bad.py", "from cyllama.llama import simple\n", "models must not import cyllama.llama"),
        ("models/bad.py", "from os import *\n", "import * is not allowed"),
        ("models/bad.py", "x = 1\n" * 501, "501 lines, at most 500"),
        ("models/bad.py", "def f():\n" + "    x = 1\n" * 61, "f: 62 lines, at most 60"),
        ("models/bad.py", "class BadError(ValueError):\n    pass\n", "BadError belongs into errors.py"),
        ("sd/_bad.pyx", "def f():\n" + "    x = 1\n" * 61, "62 lines, at most 60"),
        ("sd/_bad.pyx", 'cdef extern from "x.h":\n    pass\n', "cdef extern belongs into a lib*.pxd"),
        ("sd/_bad.pyx", "import argparse\n", "argument parsing in a .pyx"),
        ("sd/_bad.pyx", "x = 1\n", "there is no .pyi beside it"),
        ("sd/_bad.pyx", "x = 1\n" * 901, "901 lines, at most 900"),
    ],
)
def test_layout_check_finds_violations(copy: Path, file: str, text: str, message: str) -> None:
    (copy / "src/cyllama" / file).write_text(text)
    done = check("check_layout.py", copy)
    assert done.returncode == 1
    assert message in done.stdout


def test_stubs_are_fresh(copy: Path) -> None:
    done = check("gen_stubs.py", "--check")
    assert done.returncode == 0, done.stdout
    edit(copy / "src/cyllama/llama/_model.pyx", "def n_embd(self) -> int:", "def n_embdd(self) -> int:")
    done = check("gen_stubs.py", "--check", "--source", copy / "src/cyllama")
    assert done.returncode == 1
    assert "llama/_model.pyi" in done.stdout


def test_built_package_is_valid() -> None:
    done = check("check_built.py")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("flags", "target", "message"),
    [
        (["-Wl,-soname,libggml-base.so.0"], "lib/libcyllama-ggml-base.so", "SONAME is ['libggml-base.so.0']"),
        (["-Wl,-rpath,/opt/somewhere"], "sd/_core.so", "run path '/opt/somewhere' is not relative"),
        (["-Wl,-rpath,$ORIGIN/../../.."], "sd/_core.so", "leaves the package"),
        (["-DEXTRA"], "sd/_core.so", "exports 1 symbols beside PyInit_*: leak"),
    ],
)
def test_built_check_finds_wrong_libraries(tmp_path: Path, flags: list[str], target: str, message: str) -> None:
    package = tmp_path / "cyllama"
    (package / "lib").mkdir(parents=True)
    (package / "sd").mkdir()
    source = tmp_path / "x.c"
    source.write_text("void PyInit__core(void) {}\n#ifdef EXTRA\nvoid leak(void) {}\n#endif\n")
    command = ["cc", "-shared", "-fPIC", str(source)]
    subprocess.run([*command, "-Wl,-soname,libcyllama-a.so", "-o", package / "lib/libcyllama-a.so"], check=True)
    subprocess.run([*command, "-o", package / "sd/_good.so"], check=True)
    subprocess.run([*command, *flags, "-o", package / target], check=True)
    (package / "lib/modules.txt").write_text("sd _core.so _core\nsd _good.so _core\n")
    done = check("check_built.py", package)
    assert done.returncode == 1
    assert message in done.stdout
