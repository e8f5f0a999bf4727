"""Load test with all engines: no errors but 429, quick health checks, steady memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from server.conftest import CONFIG, JFK
from server.running import running_server

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 8
ROUNDS = 6
MAX_HEALTH = 1000.0  # milliseconds; guards against blocking, the benchmark measures
MAX_GROWTH = 8 << 20  # bytes in a round; a leak grows in each round


def run_clients(url: str) -> dict[str, Any]:
    """Run 64 clients, as ``python -m benchmarks load`` does, and return their results."""
    words = [sys.executable, "-m", "benchmarks.load_clients", url, "mixed", "--sound", str(JFK), "--clients", "64"]
    done = subprocess.run([*words, "--seconds", str(SECONDS)], cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_serves_many_clients_with_steady_memory(tmp_path: Path) -> None:
    config = tmp_path / "models.toml"
    config.write_text("\n".join(line for line in CONFIG.splitlines() if not line.startswith("api_keys")))
    rounds, sizes = [], []
    with running_server("--config", config, "--preload") as server:
        for _ in range(ROUNDS):
            rounds.append(run_clients(server.url))
            sizes.append(server.rss())
            if len(sizes) > 1 and sizes[-1] < sizes[-2] + MAX_GROWTH:
                break
    assert sizes[-1] < sizes[-2] + MAX_GROWTH, sizes
    assert [found["errors"] for found in rounds] == [[]] * len(rounds)
    found = rounds[-1]
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
    assert found["health_ms"]["p99"] < MAX_HEALTH
    assert not [line for line in server.errors if "Traceback" in line], server.errors
