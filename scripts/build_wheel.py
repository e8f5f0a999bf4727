"""Build the wheel into dist/ and check what is in it (make wheel)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Build with the tools that are installed, then look at the result."""
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "-w", "dist", str(ROOT)],
        cwd=ROOT,
        check=True,
    )
    wheel = max((ROOT / "dist").glob("cyllama-*.whl"), key=lambda path: path.stat().st_mtime)
    print(f"{wheel.relative_to(ROOT)}: {wheel.stat().st_size / 1e6:.1f} MB")
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "check_built.py"), str(wheel)], check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
