"""What the benchmarks share: paths, neighbours, medians, side-by-side runs."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "build" / "benchmarks"
N_CORES = len(os.sched_getaffinity(0))
# What brings upstream's behaviour back: a fixed team, and a barrier that spins for ever.
BEFORE = {"GGML_TEAM_FIXED": "1", "GGML_BARRIER_SPINS": "-1"}


@dataclass(frozen=True)
class Spread:
    """Several runs of one measurement."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle value."""
        return statistics.median(self.values)

    def __str__(self) -> str:
        return f"{self.median:.4g} ({min(self.values):.4g} to {max(self.values):.4g})"


def ratio(a: Spread, b: Spread) -> Spread:
    """a / b, pair by pair."""
    return Spread(tuple(x / y for x, y in zip(a.values, b.values, strict=True)))


def side_by_side(runs: int, *measurements: Callable[[], float]) -> list[Spread]:
    """Run the measurements in turn, A B A B ..., after one round that is not counted."""
    rounds = [[measure() for measure in measurements] for _ in range(runs + 1)][1:]
    return [Spread(tuple(column)) for column in zip(*rounds, strict=True)]


def program(name: str) -> str:
    """A native program of ``make tools``."""
    path = ROOT / "bin" / name
    if not path.exists():
        raise SystemExit(f"bin/{name} is missing; build it with: make tools")
    return str(path)


def run(command: list[str], environment: dict[str, str] | None = None, *, errors: bool = False) -> str:
    """Output of a command that must succeed, with `errors` that of its standard error as well."""
    done = subprocess.run(
        command, env=os.environ | (environment or {}), capture_output=True, text=True, check=False, cwd=ROOT
    )
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} failed: {done.stderr.strip()[-500:]}")
    return done.stdout + done.stderr if errors else done.stdout


def python(module: str, *arguments: str, environment: dict[str, str] | None = None) -> dict[str, float]:
    """A module of this folder in a process of its own; it prints JSON."""
    result: dict[str, float] = json.loads(run([sys.executable, "-m", module, *arguments], environment))
    return result


@contextlib.contextmanager
def neighbour(n_processes: int) -> Iterator[None]:
    """Processes that keep a core busy each."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n_processes)]
    time.sleep(0.5)
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def save(name: str, **results: object) -> None:
    """Keep the figures for the report."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    plain = {key: asdict(value) if isinstance(value, Spread) else value for key, value in results.items()}
    (RESULTS / f"{name}.json").write_text(json.dumps(plain, indent=1))


def load(name: str) -> dict[str, object]:
    """The figures that :func:`save` kept."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        raise SystemExit(f"no figures of {name!r}; run: python -m benchmarks {name}")
    found = json.loads(path.read_text())
    return {
        key: Spread(tuple(value["values"])) if isinstance(value, dict) and "values" in value else value
        for key, value in found.items()
    }
