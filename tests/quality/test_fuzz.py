"""Fuzzing: a short run of each target finds nothing, and the driver reports what it should."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUN = ROOT / "fuzz" / "run.py"
sys.path.insert(0, str(ROOT))
from fuzz.run import TARGETS  # noqa: E402
from fuzz.target import documented  # noqa: E402

RUNS = 1000
# A driver with one target, which fails for an input that contains the letter.
FAILING = """
import sys
sys.path[0] = {root!r}
from fuzz import run
from fuzz.target import Target
def one(data):
    if {letter!r} in data:
        {failure}
run.TARGETS = {{"failing": ("-", ())}}
run.MAX_CRASHES = 2
run.COMMAND = [sys.executable, __file__]
run.load = lambda name: Target(lambda: one, lambda: [b"aaaa", b"abab"], seconds=2)
sys.exit(run.main())
"""


def fuzz(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, program, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", TARGETS)
def test_target_finds_nothing(name: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="Atheris has no wheel for this Python or platform")
    done = fuzz(RUN, name, "--runs", str(RUNS), "--seed", "1", "--work", str(tmp_path))
    logs = "".join(path.read_text(errors="replace")[-5000:] for path in sorted((tmp_path / name).glob("log*")))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    assert f"{RUNS:,} executions" in done.stdout and "0 crashes" in done.stdout


@pytest.mark.parametrize(
    "failure", ["raise KeyError(1)", "import os; os.abort()", "import os; os._exit(3)", "while True: pass"]
)
def test_driver_reports_crashes(failure: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="Atheris has no wheel for this Python or platform")
    program = tmp_path / "failing.py"
    program.write_text(FAILING.format(root=str(ROOT), letter=b"c", failure=failure))
    done = fuzz(program, "--runs", "100000", "--work", str(tmp_path / "work"))
    assert done.returncode == 1, done.stdout + done.stderr
    assert ", 0 crashes" not in done.stdout


def test_rejects_unknown_target() -> None:
    done = fuzz(RUN, "nonsense")
    assert done.returncode == 2 and "'nonsense'" in done.stderr and "gguf" in done.stderr


def test_accepts_only_documented_exceptions() -> None:
    from cyllama.errors import EngineError
    from cyllama.media.encoded import decode_base64

    with documented(ValueError):
        decode_base64("%", "image")
    with documented(RuntimeError):
        raise EngineError("x")
    for errors in ((ValueError,), (KeyError,)):
        with pytest.raises(json.JSONDecodeError), documented(*errors):
            json.loads("{")
