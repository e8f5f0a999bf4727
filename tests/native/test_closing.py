"""Every member of every handle is called while the handle and its parents are closed by another thread."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("closing_during_calls.py")
# Fewer members would mean that the program does not find them.
MEMBERS = {"native": 25, "llama": 240, "llava": 60, "whisper": 90, "sd": 10}


@pytest.mark.parametrize("engine", MEMBERS)
def test_closing_during_each_call(engine: str) -> None:
    command = [sys.executable, "-X", "faulthandler", PROGRAM, engine]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, (done.returncode, done.stderr[-3000:])
    assert int(done.stdout) >= MEMBERS[engine]
