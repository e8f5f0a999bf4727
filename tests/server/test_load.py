"""Many clients at once, over all engines: no error but the announced one, and the server answers quickly all the while."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from server.conftest import CONFIG, JFK
from server.running import running_server

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 12
QUICK = 1000.0  # milliseconds: this guards against hanging; the benchmark measures
MIB = 1 << 20


def test_many_clients_of_all_engines(tmp_path: Path) -> None:
    """64 clients, as of ``python -m benchmarks load``, for a shorter time."""
    config = tmp_path / "models.toml"
    config.write_text("\n".join(line for line in CONFIG.splitlines() if not line.startswith("api_keys")))
    with running_server("--config", config, "--preload") as server:
        words = [sys.executable, "-m", "benchmarks.load_clients", server.url, "mixed", "--sound", str(JFK)]
        words += ["--clients", "64"]
        warm = subprocess.run([*words, "--seconds", "6"], cwd=ROOT, capture_output=True, text=True, check=True)
        before = server.rss()
        run = subprocess.run([*words, "--seconds", str(SECONDS)], cwd=ROOT, capture_output=True, text=True, check=True)
        after = server.rss()
    found = json.loads(run.stdout)
    assert json.loads(warm.stdout)["errors"] == []
    assert found["errors"] == []
    statuses = found["statuses"]
    assert {name.split()[1] for name in statuses} <= {"200", "429"}
    routes = {name.split()[0] for name in statuses if name.endswith(" 200")}
    assert routes >= {
        "/v1/chat/completions",
        "/v1/embeddings",
        "/v1/rerank",
        "/v1/audio/transcriptions",
        "/v1/images/generations",
        "/sdapi/v1/txt2img",
        "/metrics",
        "/health",
    }
    assert found["health_ms"]["p99"] < QUICK
    assert after < before + 32 * MIB
    assert not [line for line in server.errors if "Traceback" in line], server.errors
