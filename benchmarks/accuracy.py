"""Word error rates of Whisper models on the recordings of the tests, compared with whisper-cli."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import command, show
from benchmarks.measure import ROOT, Figures, Rounds, model, program, quantized, threads

TITLE = "Speech to text: word error rates"
TIMED = False
MODELS = {"tiny.en, f16": ("tiny.en", None), "tiny.en, q8_0": ("tiny.en", "q8_0"), "tiny.en, q5_1": ("tiny.en", "q5_1")}
MODELS |= {"base, f16": ("base", None), "base, q8_0": ("base", "q8_0")}


def native(path: str, sound: Path, language: str, folder: Path) -> str:
    """Return the text of whisper-cli for the same samples: mono, 16 kHz, resampled by cyllama."""
    import soundfile

    from cyllama.media.audio import SAMPLE_RATE, load_audio

    same = folder / "same.wav"
    soundfile.write(same, load_audio(sound), SAMPLE_RATE, subtype="FLOAT")
    words = [program("whisper-cli"), "-m", path, "-f", str(same), "-l", language, "-t", str(threads())]
    words += ["-bs", "1", "-bo", "5", "-np", "-nt"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def measure(rounds: Rounds) -> Figures:
    """Transcribe all recordings with all models, once: the results are deterministic."""
    sys.path.insert(0, str(ROOT / "tests"))
    from data import speech

    from cyllama.whisper import Whisper

    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        recordings = speech.recordings()
        for label, (name, kind) in MODELS.items():
            path = model(name) if kind is None else quantized(name, kind)
            whisper = Whisper(path)
            rows = {}
            for item in recordings:
                if item.language == "en" or whisper.is_multilingual:
                    ours = whisper(item.path, language=item.language, without_timestamps=True).text
                    theirs = native(path, item.path, item.language, Path(folder))
                    rows[item.name] = {
                        "language": item.language,
                        "words": len(speech.words(item.text)),
                        "errors": speech.word_errors(item.text, ours),
                        "native": speech.word_errors(item.text, theirs),
                    }
            found[label] = rows
            print(f"   {label}", flush=True)
    return {"models": found}


def rate(rows: dict[str, Any], key: str, language: str) -> str:
    """Return the word error rate of a language, in per cent."""
    chosen = [row for row in rows.values() if language in ("", row["language"])]
    total = sum(row["words"] for row in chosen)
    return f"{100 * sum(row[key] for row in chosen) / total:.1f}% of {total}" if total else ""


def section(figures: Figures, charts: Path) -> list[str]:
    """Return the part of the page."""
    languages = {"en": "English", "fr": "French", "de": "German"}
    return [
        "Word error rates (substitutions, deletions and insertions) for speakers, a telephone recording (8 kHz) and "
        "a synthesizer (espeak-ng), see tests/data/speech.py; greedy, without timestamps. *cli* is whisper-cli "
        "with the same settings and samples.",
        "",
        *show.table(
            ("", *(name for language in languages.values() for name in (language, "cli"))),
            [
                (
                    label,
                    *(rate(rows, key, language) for language in languages for key in ("errors", "native")),
                )
                for label, rows in figures["models"].items()
            ],
        ),
    ]


if __name__ == "__main__":
    sys.exit(command.main(["accuracy", *sys.argv[1:]]))
