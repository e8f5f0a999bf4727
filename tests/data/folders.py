"""Folders that the tests cannot write, also when root runs them."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

NOBODY = 65534


@contextlib.contextmanager
def outside() -> Iterator[Path]:
    """Make a folder that other users can read: those of pytest are the user's alone."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Make a folder and what it contains read-only. Root becomes another user meanwhile."""
    everything = [folder, *folder.rglob("*")]
    modes = {path: path.stat().st_mode & 0o777 for path in everything}
    for path, mode in modes.items():
        path.chmod(0o555 if path.is_dir() else 0o444 | mode & 0o111)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        for path, mode in modes.items():
            if path.exists():
                path.chmod(mode)
