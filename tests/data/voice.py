"""Prompts that somebody speaks, by espeak-ng.

The voice is the one of several that whisper tiny.en hears right, word for word, in the sentences of the tests: it
mishears the other ones often, and short sentences more than long ones.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path


def speak(text: str, path: Path) -> Path:
    """Write a recording of the text."""
    program = shutil.which("espeak-ng")
    assert program, "espeak-ng is missing; install it (Debian: apt-get install espeak-ng)"
    subprocess.run([program, "-v", "en-us+f3", "-s", "110", "-w", path, text], check=True)
    return path
