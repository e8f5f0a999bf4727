"""A short run of the mixed attack of `benchmarks.attacked`: honest clients get their responses, and SIGTERM ends it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 12
WATCHDOG = 300.0  # seconds


def test_serves_honest_clients_during_attack() -> None:
    words = [sys.executable, "-m", "benchmarks.attacked", "--seconds", str(SECONDS), "--model", "tiny-random-llama"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=WATCHDOG)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for phase in ("without", "with"):
        assert found[phase]["n_errors"] == 0, found[phase]["errors"]
        assert {"chat", "stream", "embeddings", "tokenize", "health"} <= set(found[phase]["ms"])
    assert {"idle", "unread_stream"} <= set(found["attacks"]), found["attacks"]
    assert found["exit"] == 0 and found["tracebacks"] == 0
    assert found["stop_seconds"] < 100  # the grace period is 10 s
