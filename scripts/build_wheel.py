"""Build the wheel into dist/ with every CPU variant, give it its manylinux tag and check its contents (make wheel)."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
LARGEST = 25_000_000  # bytes


def tool(*arguments: object, capture: bool = False) -> str:
    """Run a module of this interpreter; return what it printed, if it is captured."""
    command = [sys.executable, "-m", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE if capture else None)
    return done.stdout or ""


def newest() -> Path:
    """Return the newest wheel in dist/."""
    return max(DIST.glob("cyllama-*.whl"), key=lambda path: path.stat().st_mtime)


def platform_tag(wheel: Path) -> str:
    """Return the manylinux tag that auditwheel derives from the symbols of the wheel's libraries."""
    report = " ".join(tool("auditwheel", "show", wheel, capture=True).split())
    found = re.search(r'consistent with the following platform tag: "(\w+)"', report)
    if not found:
        sys.exit(f"cyllama: auditwheel names no platform tag for {wheel.name}: {report}")
    return found[1]


def compress(wheel: Path) -> None:
    """Write a wheel again with the best compression of zlib; pip uses the default."""
    smaller = wheel.with_suffix(".new")
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(smaller, "w") as target:
        for entry in source.infolist():
            target.writestr(entry, source.read(entry), zipfile.ZIP_DEFLATED, compresslevel=9)
    smaller.replace(wheel)


def main() -> int:
    """Build with the installed tools, then check the result; return the exit code."""
    tool("pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "-w", "dist", ROOT)
    wheel = newest()
    if sys.platform == "linux":
        # The tag linux_x86_64 does not tell which C library the wheel needs.
        tag = platform_tag(wheel)
        tool("wheel", "tags", "--remove", "--platform-tag", tag, wheel, capture=True)
        wheel = newest()
        if platform_tag(wheel) != tag or tag not in wheel.name:
            sys.exit(f"cyllama: {wheel.name} does not carry the tag {tag}")
    compress(wheel)
    size = wheel.stat().st_size
    print(f"{wheel.relative_to(ROOT)}: {size / 1e6:.1f} MB")
    if size > LARGEST:
        sys.exit(f"cyllama: the wheel has {size:,} bytes, expected at most {LARGEST:,}")
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "check_built.py"), str(wheel)], check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
