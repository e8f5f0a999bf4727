"""Times of words, wrong words and invented words, beside faster-whisper, on recordings with known times."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import command, show
from benchmarks.measure import ROOT, Figures, Rounds, model, run, threads
from benchmarks.transcription import peers

TITLE = "Times of words, silence and noise, against faster-whisper"
TIMED = False
ONCE = str(ROOT / "benchmarks" / "speech_times_once.py")
LANGUAGES = {"en": "tiny.en", "fr": "base", "de": "base"}  # faster-whisper's file is that of tiny.en


def write(folder: Path, recordings: Sequence[Any]) -> None:
    """Write recordings as `speech_times_once` reads them."""
    import soundfile

    items = []
    for i, recording in enumerate(recordings):
        soundfile.write(folder / f"{i}.wav", recording.samples, 16_000, "FLOAT")
        items.append(
            {"name": recording.name, "file": f"{i}.wav", "language": recording.language, "prompt": recording.prompt}
        )
    (folder / "recordings.json").write_text(json.dumps(items))


def measure(rounds: Rounds) -> Figures:
    """Transcribe all recordings with and without VAD, once: the results are deterministic."""
    sys.path.insert(0, str(ROOT / "tests"))
    from data import timed_speech

    python, weights = peers()
    found: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(LANGUAGES.values()):
        chosen = [item for item in timed_speech.timed_recordings() if LANGUAGES[item.language] == name]
        packages = {"cyllama": [sys.executable, "-P", ONCE, "cyllama", model(name)]}
        if name == "tiny.en":
            packages["faster-whisper"] = [python, "-P", ONCE, "faster-whisper", weights]
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), chosen)
            for package, words in packages.items():
                for vad in (False, True):
                    line = [*words, folder, "--threads", str(threads()), *(["--vad"] if vad else [])]
                    texts = json.loads(run(line).stdout)
                    for item in chosen:
                        score = timed_speech.score(item, texts[item.name])
                        key = f"{package}, VAD" if vad else package
                        found.setdefault(item.name, {})[key] = vars(score)
                    print(f"   {name}: {package}{', VAD' if vad else ''}", flush=True)
    return {"recordings": found}


def cells(scores: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return wrong and invented words, and the errors of starts and ends: mean and worst."""
    if not scores:
        return ("",) * 4
    cells = [f"{sum(score['wrong'] for score in scores)}", f"{sum(score['invented'] for score in scores)}"]
    for key in ("starts", "ends"):
        errors = [error for score in scores for error in score[key]]
        cells.append(f"{statistics.fmean(errors):.2f} / {max(errors):.2f}" if errors else "")
    return tuple(cells)


def section(figures: Figures, charts: Path) -> list[str]:
    """Return the part of the page."""
    recordings = figures["recordings"]
    both = [scores for scores in recordings.values() if "faster-whisper" in scores]
    rows: list[tuple[object, ...]] = []
    for name, scores in recordings.items():
        for key in ("cyllama", "faster-whisper", "cyllama, VAD", "faster-whisper, VAD"):
            if key in scores:
                rows.append((name, key, scores[key]["words"], *cells([scores[key]])))
    for key in ("cyllama", "faster-whisper", "cyllama, VAD", "faster-whisper, VAD"):
        chosen = [scores[key] for scores in both]
        rows.append(("**all in English**", key, sum(score["words"] for score in chosen), *cells(chosen)))
    return [
        "Utterances of the recordings of the tests, joined with pauses of 0.25 to 35 s and noise, see "
        "tests/data/timed_speech.py; greedy, with word timestamps. Errors in seconds, mean / worst: of the start of "
        "the first word and of the end of the last word of each utterance, if that word is found. Invented words are "
        "in a pause. tiny.en for English (faster-whisper 1.2.1: the same weights, float32), base for the others.",
        "",
        *show.table(("", "", "words", "wrong", "invented", "starts", "ends"), rows),
    ]


if __name__ == "__main__":
    sys.exit(command.main(["speech_times", *sys.argv[1:]]))
