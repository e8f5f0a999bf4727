"""Shared code of the benchmarks: processes, competing load, medians, stored figures."""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cyllama
from cyllama._native import engine_label

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "build" / "benchmarks"
MODEL = "smollm2-135m-instruct"
TINY_MODEL = "tiny-random-llama"
TIMEOUT = 600.0
# Variables that would change the measurement if the caller had set them.
OURS = ("GGML_TEAM_FIXED", "GGML_BARRIER_SPINS", "CYLLAMA_CPU_VARIANT", "CYLLAMA_KERNELS", "LLAMA_ARG_THREADS")

Environment = Mapping[str, str]
Figures = dict[str, Any]


class Missing(Exception):
    """A requirement of a benchmark is missing."""


@dataclass(frozen=True)
class Rounds:
    """Number of rounds."""

    count: int
    quick: bool

    def pick(self, normal: int, quick: int) -> int:
        """Return the size of the work."""
        return quick if self.quick else normal


@dataclass(frozen=True)
class Spread:
    """Several runs of one measurement."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """Return the median."""
        return statistics.median(self.values)

    def __str__(self) -> str:
        return f"{digits(self.median)} ({digits(min(self.values))} to {digits(max(self.values))})"

    def __truediv__(self, other: Spread) -> Spread:
        """Return the ratios, pair by pair."""
        return Spread(tuple(a / b for a, b in zip(self.values, other.values, strict=True)))

    def __sub__(self, other: Spread) -> Spread:
        """Return the differences, pair by pair."""
        return Spread(tuple(a - b for a, b in zip(self.values, other.values, strict=True)))


def digits(value: float) -> str:
    """Return a number with its significant digits."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) < 0.1:
        return f"{value:.2g}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def in_turn(
    rounds: int, measurements: Mapping[str, Callable[[], Mapping[str, float]]], *, best_of: int = 1
) -> dict[str, dict[str, Spread]]:
    """Run all measurements in turn, A B A B ..., after a warm-up round.

    Each returns one or more figures by name; the result is the spread of each, by measurement and figure. With
    `best_of`, each value is the highest of that number of rounds, because other load can only reduce it.
    """
    found: dict[str, list[Mapping[str, float]]] = {name: [] for name in measurements}
    for i in range(rounds * best_of + 1):
        for name, run_once in measurements.items():
            figures = run_once()
            if i > 0:
                found[name].append(figures)
        print(f"   round {i} of {rounds * best_of}" if i else "   warmed up", flush=True)
    return {
        name: {
            key: Spread(tuple(max(row[key] for row in rows[i : i + best_of]) for i in range(0, len(rows), best_of)))
            for key in rows[0]
        }
        for name, rows in found.items()
    }


# --------------------------------------------------------------------------------------- processes


def threads() -> int:
    """Return the number of threads of all measurements: the package's default."""
    return int(cyllama.get_threads())


def program(name: str) -> str:
    """Return the path of a native program of ``make tools``."""
    for folder in (ROOT / "bin", ROOT / "build" / "engines" / "bin"):
        if (folder / name).exists():
            return str(folder / name)
    raise Missing(f"bin/{name} is missing; build it with: make tools")


@functools.cache
def model(name: str = MODEL) -> str:
    """Return the path of a model, downloaded on first use."""
    try:
        return str(cyllama.models.get(name))
    except (cyllama.DownloadError, ValueError) as error:
        raise Missing(f"the model {name} is not available: {error}") from error


def quantized(name: str, kind: str) -> str:
    """Return a Whisper model with weights of another type, created on first use."""
    from cyllama.whisper import quantize

    target = RESULTS / f"{name}-{kind}.bin"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        quantize(model(name), target, kind)
    return str(target)


def run(command: list[str], environment: Environment | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command that must succeed.

    Its output goes to files, because reading a pipe would compete for a core.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        try:
            code = subprocess.run(
                command, env=clean(environment), stdout=out, stderr=err, check=False, cwd=ROOT, timeout=TIMEOUT
            ).returncode
        except subprocess.TimeoutExpired:
            raise Missing(f"`{spell(command, environment)}` did not end within {TIMEOUT:.0f} s") from None
        out.seek(0)
        err.seek(0)
        done = subprocess.CompletedProcess(command, code, out.read(), err.read())
    if done.returncode != 0:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise Missing(f"`{spell(command, environment)}` failed ({done.returncode}): {last}")
    return done


def peer(name: str, *packages: str, alone: Sequence[str] = (), base: str = sys.executable) -> str:
    """Return the interpreter of a virtual environment with other packages, created on first use.

    Packages of `alone` are installed without what they require.

    Raises
    ------
    Missing
        They cannot be installed.
    """
    folder = RESULTS / "peers" / name
    python = folder / "bin" / "python"
    ready = folder / "ready"
    wanted = " ".join((*packages, *alone))
    if not ready.exists() or ready.read_text() != wanted:
        print(f"   installing {wanted}", flush=True)
        try:
            subprocess.run([base, "-m", "venv", "--clear", folder], check=True)
            subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
            if alone:
                subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", *alone], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise Missing(f"{wanted} cannot be installed: {error}") from error
        ready.write_text(wanted)
    return str(python)


def python(module: str, *arguments: object) -> list[str]:
    """Return the command for a module of this folder, which prints JSON."""
    return [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]


def figures_of(command: list[str], environment: Environment | None = None) -> dict[str, float]:
    """Run a command of :func:`python`."""
    found: dict[str, float] = json.loads(run(command, environment).stdout)
    return found


def clean(environment: Environment | None = None) -> dict[str, str]:
    """Return the caller's environment without `OURS`, and with `environment`."""
    return {key: value for key, value in os.environ.items() if key not in OURS} | dict(environment or {})


def spell(command: list[str], environment: Environment | None = None) -> str:
    """Return a command as typed in the checkout, without absolute paths."""
    words = [f"{key}={value}" for key, value in (environment or {}).items()]
    for word in command:
        if word == sys.executable:
            words.append("python")
        elif word.startswith(f"{ROOT}{os.sep}"):
            words.append(str(Path(word).relative_to(ROOT)))
        else:
            words.append(Path(word).name if os.path.isabs(word) else word)
    return " ".join(f"'{word}'" if " " in word else word for word in words)


@contextlib.contextmanager
def competing_process(n_threads: int) -> Iterator[None]:
    """Run a competing process with `n_threads` busy threads; none for 0."""
    if n_threads == 0:
        yield
        return
    process = subprocess.Popen(python("busy", n_threads), cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise Missing("the competing process did not start")
        time.sleep(0.5)
        yield
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


# ------------------------------------------------------------------------------ figures and machine


def save(name: str, figures: Figures, rounds: Rounds, others: float) -> None:
    """Store the figures for the page."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    kept = {
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
        "runs": rounds.count,
        "quick": rounds.quick,
        "others": others,
        "figures": figures,
    }
    text = json.dumps(kept, indent=1, default=lambda value: {"values": value.values})
    (RESULTS / f"{name}.json").write_text(text + "\n")


def load(name: str) -> Figures | None:
    """Return the figures that :func:`save` stored, or None."""

    def spreads(value: dict[str, Any]) -> Any:
        return Spread(tuple(value["values"])) if value.keys() == {"values"} else value

    path = RESULTS / f"{name}.json"
    if not path.exists():
        return None
    found: Figures = json.loads(path.read_text(), object_hook=spreads)
    return found if "machine" in found else None


class Others:
    """Measure the processor time of other processes."""

    def __init__(self) -> None:
        self.start, self.busy, self.own = time.monotonic(), busy_seconds(), own_seconds()

    def cores(self) -> float:
        """Return the average number of cores that they kept busy (0 if unknown)."""
        busy, own = busy_seconds() - self.busy, own_seconds() - self.own
        return max(0.0, busy - own) / (time.monotonic() - self.start)


def busy_seconds() -> float:
    """Return the busy seconds of all cores since boot, steal time included."""
    try:
        words = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    except OSError:
        return 0.0
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, words[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def own_seconds() -> float:
    """Return the processor seconds of this process and its finished children."""
    return sum(os.times()[:4])


def machine() -> dict[str, str]:
    """Return the machine and the versions that the figures depend on."""
    info = cyllama.build_info()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    engines = ", ".join(f"{name} {engine_label(engine)}" for name, engine in info["engines"].items())
    return {
        "processor": processor(),
        "cores": f"{len(os.sched_getaffinity(0))} cores, {info['threads']} threads used",
        "memory": f"{memory:.1f} GiB",
        "system": f"{platform.system()} {platform.release()}, Python {info['python']}",
        "compiler": compiler(),
        "CPU variant": f"variant {info['cpu']['variant']} ({', '.join(info['cpu']['features'])})",
        "versions": f"cyllama {info['version']}, ggml {info['ggml']['version']}, {engines}",
    }


def processor() -> str:
    """Return the processor's name."""
    with contextlib.suppress(OSError):
        name = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        if name:
            return name.group(1)
    return platform.processor() or platform.machine()


def compiler() -> str:
    """Return the compiler of the CPU backend, as recorded in the library."""
    for path in sorted(library_folder().glob("*ggml-cpu-*.so")):
        name = re.search(rb"GCC: \([^)\0]*\) [\d.]+|clang version [\d.]+", path.read_bytes())
        if name:
            return name.group(0).decode().replace("GCC: ", "GCC ")
    return "unknown"


def library_folder() -> Path:
    """Return the folder of the package's shared libraries."""
    return Path(cyllama.__file__).parent / "lib"
