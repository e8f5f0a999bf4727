"""``cyllama doctor`` in copies of the package that are broken."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import cyllama

PACKAGE = Path(cyllama.__file__ or "").parent
CODE = """
import os, sys
for name in os.environ.get("MISSING", "").split():
    sys.modules[name] = None
from cyllama.cli import main
sys.exit(main(sys.argv[1:]))
"""


def linked(source: str, target: str) -> str:
    """Link a file, or copy it to another file system."""
    with contextlib.suppress(OSError):
        os.link(source, target)
        return target
    return shutil.copy2(source, target)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package; its files are replaced, never changed."""
    target = tmp_path / "site" / "cyllama"
    ignored = shutil.ignore_patterns("__pycache__", "*.pyx", "page")
    shutil.copytree(PACKAGE, target, copy_function=linked, ignore=ignored)
    return target


def diagnosed(copy: Path, **variables: str) -> tuple[int, dict]:
    others = [entry for entry in sys.path if entry and Path(entry).resolve() != PACKAGE.parent.resolve()]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(copy.parent), *others]), **variables}
    done = subprocess.run(
        [sys.executable, "-c", CODE, "doctor", "--json"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stderr == "" and "Traceback" not in done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def cut(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[: len(data) // 3])


def remove_cpu_backends(copy: Path) -> None:
    for path in copy.glob("lib/libggml-cpu*"):
        path.unlink()


def text(name: str, content: str) -> Callable[[Path], None]:
    """Return a function that replaces a file."""

    def write(copy: Path) -> None:
        (copy / name).unlink(missing_ok=True)
        (copy / name).write_text(content)

    return write


SITUATIONS: dict[str, tuple[Callable[[Path], None], dict[str, str], list[str]]] = {
    "an engine is missing": (lambda copy: (copy / "sd/_sd.abi3.so").unlink(), {}, ["engine sd", "reinstall cyllama"]),
    "an engine is cut off": (lambda copy: cut(copy / "sd/_sd.abi3.so"), {}, ["_sd.abi3.so is cut off", "reinstall"]),
    "a shared library is missing": (
        lambda copy: (copy / "lib/libcyllama-ggml-base.so").unlink(), {}, ["libcyllama-ggml-base.so", "reinstall"],
    ),
    "the CPU backend is missing": (remove_cpu_backends, {}, ["CPU backend", "install"]),
    "the list of modules is missing": (lambda copy: (copy / "lib/modules.txt").unlink(), {}, ["_core", "reinstall"]),
    "the record of the build is damaged": (text("lib/build.json", "{"), {}, ["the build", "reinstall cyllama"]),
    "a package is missing": (lambda copy: None, {"MISSING": "numpy"}, ["engine whisper", "pip install numpy"]),
    "another package is missing": (lambda copy: None, {"MISSING": "PIL"}, ["engine sd", "pip install pillow"]),
    "the configuration is wrong": (
        text("config.toml", "[chta]\n"), {"CYLLAMA_CONFIG": "{copy}/config.toml"}, ["config.toml", "did you mean [chat]"],
    ),
    "the model folder is a file": (
        text("models.txt", ""), {"CYLLAMA_CACHE": "{copy}/models.txt/cache"}, ["models.txt", "CYLLAMA_CACHE"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("situation", SITUATIONS)
def test_doctor_names_the_problem_and_the_repair(copy: Path, situation: str) -> None:
    damage, variables, words = SITUATIONS[situation]
    damage(copy)
    code, found = diagnosed(copy, **{name: value.format(copy=copy) for name, value in variables.items()})
    assert found["package"]["folder"] == str(copy)
    assert code == 1 and found["problems"]
    assert any(all(word in problem for word in words) for problem in found["problems"]), found["problems"]


def test_doctor_finds_no_problem_in_a_whole_copy(copy: Path) -> None:
    code, found = diagnosed(copy)
    assert (code, found["problems"], found["package"]["folder"]) == (0, [], str(copy))
