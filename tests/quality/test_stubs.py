"""The stubs of a small package: what a type checker needs of it, the same in every run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "gen_stubs.py"
SOURCE = '''
from enum import IntEnum
from typing import cast
import numpy as np
from cyllama.sd cimport liblib as lib

Mode = IntEnum("Mode", {"OFF": cast(int, lib.OFF), "ON": cast(int, lib.ON)})

cdef class Thing:
    """A thing."""
    cdef int _n

    def __cinit__(self, n: int, *, name: str = "x") -> None:
        self._n = n

    def __dealloc__(self):
        self._n = 0

    @property
    def n(self) -> int:
        """How many."""
        return self._n

    def data(self) -> np.ndarray:
        """Float32, shape (n,)."""
        return np.zeros(self._n)

    cdef int _hidden(self):
        return 0
'''


def stubs(source: Path, *arguments: str, seed: str = "0") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--source", str(source), *arguments]
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "cyllama" / "sd"
    folder.mkdir(parents=True)
    for name in ("../__init__.py", "../__init__.pxd", "__init__.py", "__init__.pxd"):
        (folder / name).touch()
    (folder / "liblib.pxd").write_text('cdef extern from "lib.h":\n    cdef enum mode:\n        OFF\n        ON\n')
    (folder / "_thing.pyx").write_text(SOURCE)
    return folder.parent


def test_stub_has_signatures_and_docstrings(package: Path) -> None:
    assert stubs(package).returncode == 0
    text = (package / "sd" / "_thing.pyi").read_text()
    compile(text, "_thing.pyi", "exec")
    assert "class Mode(IntEnum):\n    OFF = ...\n    ON = ...\n" in text
    assert "def __init__(self, n: int, *, name: str='x') -> None: ..." in text
    assert "    @property\n    def n(self) -> int: ..." in text
    assert "def data(self) -> np.ndarray: ..." in text
    for word in ("__dealloc__", "_hidden", "_n:", "How many", "lib", "cast", str(package.parent)):
        assert word not in text, word


def test_check_compares_and_writes_nothing(package: Path) -> None:
    stub = package / "sd" / "_thing.pyi"
    assert stubs(package, "--check").returncode == 1
    assert not stub.exists()
    assert stubs(package).returncode == 0
    assert stubs(package, "--check").returncode == 0
    stub.write_text(stub.read_text() + "x: int\n")
    done = stubs(package, "--check")
    assert done.returncode == 1
    assert "sd/_thing.pyi" in done.stdout and "make stubs" in done.stdout


def test_stubs_are_reproducible(package: Path) -> None:
    found = set()
    for seed in ("1", "2"):
        assert stubs(package, seed=seed).returncode == 0
        found.add((package / "sd" / "_thing.pyi").read_text())
        (package / "sd" / "_thing.pyi").unlink()
    assert len(found) == 1
