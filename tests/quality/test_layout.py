"""The rules of check_layout.py that go beyond test_checks.py, each on a package of one file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "check_layout.py"


def layout(root: Path, file: str, text: str) -> subprocess.CompletedProcess[str]:
    path = root / "src" / "cyllama" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    if path.suffix == ".pyx":
        path.with_suffix(".pyi").touch()
    return subprocess.run([sys.executable, str(SCRIPT), str(root)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("whisper/bad.py", "from cyllama import llama\n", "whisper must not import cyllama.llama"),
        ("whisper/bad.py", "from cyllama import errors, llama  # both\n", "whisper must not import cyllama.llama"),
        ("whisper/bad.py", "from ..sd import txt2img\n", "whisper must not import cyllama.sd"),
        ("whisper/bad.py", "def f():\n    import cyllama.sd\n", "whisper must not import cyllama.sd"),
        ("sd/bad.py", "from cyllama.cli import main\n", "sd must not import cyllama.cli"),
        ("llama/bad.py", "from cyllama.pipelines import (\n    talk,\n)\n", "llama must not import cyllama.pipelines"),
        ("sd/libbad.pxd", "from cyllama.llama cimport libllama\n", "sd must not import cyllama.llama"),
        ("llama/_bad.pyx", "from cyllama.llava._core cimport Image\n", "llama must not import cyllama.llava._core"),
        ("llama/_bad.pyx", "from cyllama.llama.libllama cimport *\n", "import * is not allowed"),
        ("server/bad.py", "from cyllama.sd import _core\nfrom cyllama.sd._core import f\n", "must use the public API"),
        (
            "log.py",
            "from cyllama import errors\nfrom cyllama._native import f\n",
            "log must not import cyllama._native",
        ),
        ("sd/_bad.pxd", 'cdef extern from "x.h":\n    pass\n', "cdef extern belongs into a lib*.pxd"),
        ("sd/_bad.pyx", "cdef extern from *:\n    pass\n", "cdef extern belongs into a lib*.pxd"),
        ("sd/_bad.pyx", "import json\n", "no JSON in a .pyx"),
        ("sd/_bad.pyx", "def f():\n    open('x')\n", "no reading or writing of files in a .pyx"),
        ("sd/_bad.pyx", "import urllib.request\n", "no HTTP or sockets in a .pyx"),
        ("sd/_bad.pyx", "class SdError(RuntimeError):\n    pass\n", "exception class SdError belongs into errors.py"),
    ],
)
def test_finds_violations(tmp_path: Path, file: str, text: str, message: str) -> None:
    done = layout(tmp_path, file, text)
    assert done.returncode == 1
    assert message in done.stdout


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("llava/good.py", "from cyllama.llama import LlamaModel\n"),
        ("llava/_good.pyx", "from cyllama.llama._model cimport LlamaModel\n"),
        ("whisper/good.py", "from cyllama import __version__, errors\nfrom . import params\n"),
        ("cli/good.py", "from cyllama import llama\nfrom cyllama.sd import txt2img\n"),
        ("sd/libgood.pxd", 'cdef extern from "x.h" nogil:\n    pass\n'),
        ("sd/_good.pyx", "def f(stream):\n    stream.open('x')\n"),
        ("errors.py", "class CyllamaError(Exception):\n    pass\n"),
        ("sd/good.py", 'def f():\n    """' + "long\n" * 61 + '"""\n'),
    ],
)
def test_accepts_valid_files(tmp_path: Path, file: str, text: str) -> None:
    done = layout(tmp_path, file, text)
    assert done.returncode == 0, done.stdout


def test_reports_circular_imports(tmp_path: Path) -> None:
    layout(tmp_path, "server/http/task.py", "from cyllama.server import state\n")
    done = layout(tmp_path, "server/state.py", "from .http.task import Task\n")
    assert done.returncode == 1 and "circular import: cyllama.server.state" in done.stdout


def test_accepts_imports_in_functions_and_for_type_checkers(tmp_path: Path) -> None:
    layout(tmp_path, "server/a.py", "if TYPE_CHECKING:\n    from cyllama.server.b import X\n")
    done = layout(tmp_path, "server/b.py", "from cyllama.server.a import Y\ndef f():\n    import cyllama.server.b\n")
    assert done.returncode == 0, done.stdout
