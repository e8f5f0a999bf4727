"""Write a .pyi beside each .pyx (make stubs), or check that they are fresh (--check)."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "cyllama"


ENUM = re.compile(r"^(\w+) = (IntEnum|IntFlag)\('\w+', (.*)\)$", re.MULTILINE)


def as_class(match: re.Match[str]) -> str:
    """Return an enum whose values come from a header as a class with its members."""
    name, base, values = match.groups()
    members = re.findall(r"'(\w+)': cast", values)
    if not members:
        return f"{name}: Any"
    return "\n".join([f"class {name}({base}):", *[f"    {member} = ..." for member in members]])


def tidy(text: str) -> str:
    """Remove what a type checker cannot resolve from the output of the generator."""
    text = ENUM.sub(as_class, text)
    text = re.sub(
        r"^(from cyllama\S* import lib\w+( as \w+)?|from \S*lib\w+ import .*)\n", "", text, flags=re.MULTILINE
    )
    text = re.sub(r"^ +def __dealloc__\(.*\n", "", text, flags=re.MULTILINE)  # not visible from Python
    if len(re.findall(r"\bcast\b", text)) == 1:  # only the enums used it
        text = re.sub(r"^from typing import cast\n|, cast\b|\bcast, ", "", text, flags=re.MULTILINE)
    if ": Any" in text and "import Any" not in text:
        text = "from typing import Any\n\n" + text
    return text.strip() + "\n"


def generate(source: Path) -> dict[Path, str]:
    """Return the stubs of all .pyx files below `source`, by their path relative to it."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / source.name
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns("*.so", "*.pyi", "lib", "__pycache__"))
        command = [
            sys.executable, "-m", "stubgen_pyx", "--exclude-docstrings", "--exclude-attribution",
            "--include-dir", folder, source.name,
        ]  # fmt: skip
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"stubgen-pyx failed: {done.stderr.strip()}")
        stubs = {}
        for pyx in sorted(copy.rglob("*.pyx")):
            pyi = pyx.with_suffix(".pyi")
            stubs[pyi.relative_to(copy)] = tidy(pyi.read_text())
        return stubs


def main(argv: list[str] | None = None) -> int:
    """Write the stubs or compare them; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 when a stub is missing or stale")
    parser.add_argument("--source", type=Path, default=SOURCE, help="the package's folder")
    arguments = parser.parse_args(argv)
    stale = []
    for name, text in generate(arguments.source).items():
        path = arguments.source / name
        if path.exists() and path.read_text() == text:
            continue
        stale.append(str(name))
        if not arguments.check:
            path.write_text(text)
    if stale and arguments.check:
        print(f"stale stubs: {', '.join(stale)}; run `make stubs`")
        return 1
    print(f"stubs: {len(stale)} written" if stale else "stubs: fresh")
    return 0


if __name__ == "__main__":
    sys.exit(main())
