"""Generation and transcription next to competing processes: fixed spinning thread team, and adaptive team.

Generation through Python and whisper's decoder (native whisper-cli), idle, beside one busy thread, and beside a
busy process with as many threads as cores; and how soon the team recovers when it ends.
"""

from __future__ import annotations

import functools
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from benchmarks import command, contention_page
from benchmarks.measure import (
    ROOT,
    Environment,
    Figures,
    Missing,
    Rounds,
    Spread,
    clean,
    competing_process,
    figures_of,
    in_turn,
    model,
    program,
    python,
    run,
    spell,
    threads,
)

TITLE = "Contention"
# Upstream's behaviour: a fixed team, and a barrier that spins.
WHEN: dict[str, Environment] = {"before": {"GGML_TEAM_FIXED": "1", "GGML_BARRIER_SPINS": "-1"}, "after": {}}
N_CORES = len(os.sched_getaffinity(0))
SITUATIONS = {"idle": 0, "one busy thread": 1, f"{N_CORES} busy threads": N_CORES}
WINDOW, STEP = 0.1, 0.02  # seconds
BEFORE_LEAVING, AFTER_LEAVING = 2.0, 3.0
BACK = 0.8  # of the final speed


def generation_command(rounds: Rounds) -> list[str]:
    """Return the command that generates 128 tokens, or for a few seconds."""
    n_generate, seconds = rounds.pick(128, 32), rounds.pick(4, 1)
    return python("decode_loop", "--generate", n_generate, "--seconds", seconds, "--threads", threads())


def whisper_command() -> list[str]:
    """Return the command that transcribes 11 seconds of speech, greedy, without fallback."""
    speech = ROOT / "tests" / "data" / "recordings" / "jfk.wav"
    chosen = ["-t", str(threads()), "-bs", "1", "-bo", "1", "-nf", "-nt"]
    return [program("whisper-cli"), "-m", model("whisper-tiny.en"), "-f", str(speech), *chosen]


def whisper_times(words: list[str], environment: Environment) -> dict[str, float]:
    """Return milliseconds per token of the decoder and of the encoder, as whisper-cli prints them."""
    text = run(words, environment).stderr
    found = {}
    for part in ("decode", "encode"):
        match = re.search(rf"{part} time = .*?/\s*\d+ runs\s*\(\s*([\d.]+) ms per run\)", text)
        if match is None:
            raise Missing(f"whisper-cli printed no {part} time")
        found[part] = float(match.group(1))
    return found


def measure(rounds: Rounds) -> Figures:
    """Measure all situations in turn, the cost on an idle machine, and the recovery after a competing process ends."""
    model()
    generate, transcribe = generation_command(rounds), whisper_command()

    def generation(when: str) -> dict[str, float]:
        return figures_of(generate, WHEN[when])

    def whisper(when: str) -> dict[str, float]:
        return whisper_times(transcribe, WHEN[when])

    return {
        "commands": [f"{spell(words, WHEN[when])}   # {when}" for words in (generate, transcribe) for when in WHEN],
        "situations": list(SITUATIONS),
        "generation": beside(rounds, generation),
        "whisper": beside(rounds, whisper),
        "idle": {
            "generation": in_turn(2 * rounds.count, {when: functools.partial(generation, when) for when in WHEN}),
            "whisper": in_turn(2 * rounds.count, {when: functools.partial(whisper, when) for when in WHEN}),
        },
        "growth": growth(rounds),
    }


def beside(rounds: Rounds, once: Callable[[str], dict[str, float]]) -> Figures:
    """Measure `once` before and after in each situation; figures by situation and when."""

    def with_competitor(n_threads: int, when: str) -> dict[str, float]:
        with competing_process(n_threads):
            return once(when)

    measurements = {
        f"{situation}/{when}": functools.partial(with_competitor, n_threads, when)
        for situation, n_threads in SITUATIONS.items()
        for when in WHEN
    }
    found = in_turn(rounds.count, measurements)
    return {situation: {when: found[f"{situation}/{when}"] for when in WHEN} for situation in SITUATIONS}


# ------------------------------------------------------------------------------------- recovery


def growth(rounds: Rounds) -> Figures:
    """Return the speed before and after the competing process ends, and the recovery times of team and speed."""
    starts = windows(-1.0, AFTER_LEAVING - 2 * WINDOW, WINDOW)
    speeds: dict[str, list[list[float]]] = {when: [] for when in WHEN}
    seconds: dict[str, list[float]] = {"team": [], "speed": []}
    for _ in range(rounds.count):
        for when in WHEN:
            trace = trace_leaving(WHEN[when])
            speeds[when].append([speed(trace, start) for start in starts])
            if when == "after":
                seconds["team"].append(team_is_back(trace))
                seconds["speed"].append(speed_is_back(trace))
    return {
        "command": spell(python("decode_trace", BEFORE_LEAVING + AFTER_LEAVING)),
        "window": WINDOW,
        "back": BACK,
        "starts": starts,
        "speed": {when: [statistics.median(at) for at in zip(*rows, strict=True)] for when, rows in speeds.items()},
        "seconds": {name: Spread(tuple(values)) for name, values in seconds.items()},
    }


def trace_leaving(environment: Environment) -> list[tuple[float, int]]:
    """Return (seconds since the competing process ended, threads of the team) of each token."""
    words = python("decode_trace", BEFORE_LEAVING + AFTER_LEAVING)
    with competing_process(N_CORES):
        process = subprocess.Popen(words, cwd=ROOT, env=clean(environment), stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(BEFORE_LEAVING)
    left = time.monotonic()
    out, _ = process.communicate()
    if process.returncode != 0:
        raise Missing(f"`{spell(words, environment)}` failed ({process.returncode})")
    return [(stamp - left, n_threads) for stamp, n_threads in json.loads(out)]


def windows(begin: float, end: float, step: float) -> list[float]:
    """Return the starts of windows of time."""
    return [round(begin + i * step, 3) for i in range(round((end - begin) / step))]


def speed(trace: list[tuple[float, int]], start: float) -> float:
    """Return tokens per second in the window that begins at `start`."""
    return sum(start <= stamp < start + WINDOW for stamp, _ in trace) / WINDOW


def team_is_back(trace: list[tuple[float, int]]) -> float:
    """Return the seconds until the team has its full size, or the end of the trace."""
    full = threads()
    return next((stamp for stamp, n_threads in trace if stamp > 0 and n_threads >= full), trace[-1][0])


def speed_is_back(trace: list[tuple[float, int]]) -> float:
    """Return the seconds until a window reaches `BACK` of the last second's speed, or the end of the trace."""
    end = trace[-1][0]
    final = sum(stamp >= end - 1 for stamp, _ in trace)
    starts = windows(0, end - WINDOW, STEP)
    return next((start for start in starts if speed(trace, start) >= BACK * final), end)


section = contention_page.section

if __name__ == "__main__":
    sys.exit(command.main(["contention", *sys.argv[1:]]))
