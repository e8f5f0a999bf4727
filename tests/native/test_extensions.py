"""The extension modules of a sub-package are in one shared object, and behave as modules of their own."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pickle
import subprocess
import sys
from importlib.machinery import ExtensionFileLoader
from pathlib import Path

import pytest

import cyllama
from cyllama import _extensions

PACKAGE = Path(cyllama.__file__).parent
SOURCES = [path.relative_to(PACKAGE) for path in sorted(PACKAGE.glob("*/_*.pyx"))]
NAMES = sorted(_extensions.read_table(_extensions.TABLE))


def test_table_lists_every_source() -> None:
    assert sorted(f"cyllama.{path.parent}.{path.stem}" for path in SOURCES) == NAMES


def test_one_shared_object_for_each_sub_package() -> None:
    objects = {Path(path).relative_to(PACKAGE) for path in _extensions.read_table(_extensions.TABLE).values()}
    assert {path.parent.name for path in objects} == {path.parent.name for path in SOURCES}
    assert {path.relative_to(PACKAGE) for path in PACKAGE.glob("*/*.abi3.so")} == objects


@pytest.mark.parametrize("name", NAMES)
def test_module_knows_its_name_and_file(name: str) -> None:
    module = importlib.import_module(name)
    spec = module.__spec__
    assert module.__name__ == spec.name == name
    assert module.__package__ == name.rpartition(".")[0]
    assert isinstance(spec.loader, ExtensionFileLoader)
    assert module.__file__ == spec.origin == inspect.getfile(module)
    assert Path(module.__file__).is_file()
    assert importlib.util.find_spec(name).origin == module.__file__


def test_no_spec_for_other_names() -> None:
    assert importlib.util.find_spec("cyllama.llama._nothing") is None
    with pytest.raises(ModuleNotFoundError, match=r"cyllama\.llama\._nothing"):
        importlib.import_module("cyllama.llama._nothing")


def test_module_can_be_reloaded() -> None:
    module = importlib.import_module("cyllama._native._tensors")
    assert importlib.reload(module) is module
    assert sys.modules["cyllama._native._tensors"] is module


def test_classes_are_pickled_by_name() -> None:
    from cyllama.llama import LlamaBatch, LlamaSampler

    for cls in (LlamaBatch, LlamaSampler):
        assert pickle.loads(pickle.dumps(cls)) is cls


def test_finder_is_installed_once() -> None:
    _extensions.install()
    assert sum(isinstance(finder, _extensions.ExtensionFinder) for finder in sys.meta_path) == 1


def test_table_is_empty_without_a_build(tmp_path: Path) -> None:
    assert _extensions.read_table(str(tmp_path / "modules.txt")) == {}


def test_imports_without_warnings() -> None:
    code = f"import importlib\nfor name in {NAMES}: importlib.import_module(name)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
