"""The cache of models: calls that were interrupted, folders that cannot be written, links."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from data.folders import outside, read_only
from models.test_models import DATA, Fakes, fakes  # noqa: F401  # a fixture

from cyllama import models
from cyllama.models import _download
from cyllama.models._download import fetch

KILLED = """
import os, signal, sys, types
from pathlib import Path
from cyllama.models import _install
from cyllama.models.registry import Model

def convert(inputs, destination):
    destination.write_bytes(b"half")
    (destination.parent / "folder").mkdir()
    os.kill(os.getpid(), int(sys.argv[2]))

sys.modules["cyllama.models.killed"] = types.ModuleType("cyllama.models.killed")
sys.modules["cyllama.models.killed"].convert = convert
common = {"about": "fake", "engine": "llama", "licence": "MIT"}
_install.make(Model(name="m", file="made.bin", sha256="0" * 64, size=1, convert="killed.convert", **common), Path(sys.argv[1]))
"""


@pytest.fixture
def cache(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:  # noqa: F811
    """A cache with the model ``plain``, which another user can read."""
    with outside() as folder:
        monkeypatch.setenv("CYLLAMA_CACHE", str(folder))
        models.get("plain")
        yield folder


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM])
def test_next_call_removes_what_a_killed_one_left(fakes: Fakes, kind: int) -> None:  # noqa: F811
    destination = models.path("fake-made")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", KILLED, destination, str(int(kind))], env=environment, check=False)
    assert done.returncode == -kind and len(list(destination.parent.iterdir())) == 2
    models.get("fake-made")
    assert list(destination.parent.iterdir()) == [destination]


def test_verifies_in_a_cache_that_cannot_be_written(cache: Path) -> None:
    with read_only(cache):
        assert models.get("plain", verify=True).read_bytes() == DATA


def test_remove_raises_if_files_stay(cache: Path) -> None:
    path = models.path("plain")
    with read_only(cache), pytest.raises(PermissionError) as caught:
        models.remove("plain")
    assert caught.value.filename == str(path.parent) and path.read_bytes() == DATA
    assert models.remove("plain") and not path.parent.exists()
    assert not models.remove("plain")


@pytest.mark.parametrize("target", ["file", "none"])
def test_link_named_as_a_download_is_not_followed(fakes: Fakes, tmp_path: Path, target: str) -> None:  # noqa: F811
    archive, folder = fakes.plain.archives[0], tmp_path / "archives"
    folder.mkdir()
    (tmp_path / "file").write_bytes(b"precious")
    (folder / f"{archive.filename}.part").symlink_to(tmp_path / target)
    assert fetch(archive, folder).read_bytes() == fakes.wheel.read_bytes()
    assert (tmp_path / "file").read_bytes() == b"precious" and not (tmp_path / "none").exists()


def test_folder_named_as_a_download_is_an_error(fakes: Fakes, tmp_path: Path) -> None:  # noqa: F811
    archive = fakes.plain.archives[0]
    (tmp_path / "archives" / f"{archive.filename}.part").mkdir(parents=True)
    with pytest.raises(OSError, match=r"\.part"):
        fetch(archive, tmp_path / "archives")


def test_download_removes_those_given_up(fakes: Fakes, tmp_path: Path) -> None:  # noqa: F811
    old, new = tmp_path / "old.whl.part", tmp_path / "new.whl.part"
    for path, age in ((old, 2 * _download.STALE_SECONDS), (new, 60.0)):
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age, time.time() - age))
    fetch(fakes.plain.archives[0], tmp_path)
    assert not old.exists() and new.exists()
