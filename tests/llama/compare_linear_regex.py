"""Compare linear_regex.hpp with std::regex: compile and run compare_linear_regex.cpp."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".cpp")
THIRDPARTY = SOURCE.parents[2] / "thirdparty"


def different(cases: Sequence[tuple[str, str]], folder: Path) -> list[str]:
    """Return the differences between the two for expressions, each with its kind: ``narrow``, ``wide``, ``groups``."""
    program = folder / "compare"
    subprocess.run(["g++", "-std=c++17", "-O1", "-I", THIRDPARTY, SOURCE, "-o", program], check=True)
    lines = [" ".join([kind, str(len(text)), *(str(ord(c)) for c in text)]) for kind, text in cases]
    done = subprocess.run([program], input="\n".join(lines), capture_output=True, text=True, check=True)
    return done.stdout.splitlines()
