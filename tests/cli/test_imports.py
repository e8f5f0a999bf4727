"""Modules that `import cyllama` and the command line load; few, so that they start quickly."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "typing",
    "numpy",
    "PIL",
    "soundfile",
    "soxr",
    "asyncio",
    "importlib.metadata",
    "unearth",
    "pydantic",
    "starlette",
)
OURS = tuple(
    f"cyllama.{part}" for part in ("llama", "llava", "whisper", "sd", "_native", "media", "models", "pipelines")
)


def loaded_by(code: str) -> set[str]:
    path = [entry for entry in sys.path if entry]
    program = f"import sys; sys.path[:0] = {path!r}; before = set(sys.modules)\n{code}\n"
    program += "print('\\n' + ' '.join(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code",
    [
        "import cyllama",
        "import cyllama; dir(cyllama); cyllama.errors.CyllamaError",
        "from cyllama.cli import main; main(['--help'])",
        "from cyllama.cli import main; main([])",
        "from cyllama.cli import main; main(['nothing'])",
    ],
)
def test_imports_no_heavy_modules(code: str) -> None:
    found = loaded_by(code)
    assert "cyllama.errors" in found
    assert not found & {*HEAVY, *OURS}
    assert not any(name.startswith(OURS) for name in found)


def test_version_loads_no_engine() -> None:
    found = loaded_by("from cyllama.cli import main; main(['--version'])")
    assert "importlib.metadata" in found and not found & {"numpy", *OURS}


def test_pool_loads_engines_on_first_use() -> None:
    found = loaded_by("from cyllama.pipelines import ModelPool; ModelPool()")
    assert not any(name.startswith(OURS[:4]) for name in found) and "numpy" not in found
