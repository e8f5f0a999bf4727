"""The words of recordings with one of two packages, as JSON: recording, and text, start and end of each word.

usage: python -m benchmarks.speech_times_once PACKAGE MODEL FOLDER [--vad] [--type NAME] [--threads N]

The folder has a WAV file for each recording, and recordings.json with their names, languages and prompts. Runs in the
Python that has the package: cyllama or faster-whisper.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Words = list[tuple[str, float, float]]


def cyllama(options: argparse.Namespace) -> Callable[[str, dict[str, Any]], Words]:
    """Return a function that transcribes with this package."""
    from cyllama.whisper import Whisper

    whisper = Whisper(options.model)

    def words(path: str, given: dict[str, Any]) -> Words:
        found = whisper(path, word_timestamps=True, vad_filter=options.vad, n_threads=options.threads, **given)
        return [(word.word, word.start, word.end) for word in found.words]

    return words


def faster_whisper(options: argparse.Namespace) -> Callable[[str, dict[str, Any]], Words]:
    """Return a function that transcribes with faster-whisper, greedy as this package."""
    from faster_whisper import WhisperModel

    model = WhisperModel(options.model, device="cpu", compute_type=options.type, cpu_threads=options.threads)

    def words(path: str, given: dict[str, Any]) -> Words:
        segments, _ = model.transcribe(path, word_timestamps=True, vad_filter=options.vad, beam_size=1, **given)
        return [(word.word, float(word.start), float(word.end)) for segment in segments for word in segment.words or ()]

    return words


PACKAGES = {"cyllama": cyllama, "faster-whisper": faster_whisper}


def main() -> None:
    """Run one package."""
    parser = argparse.ArgumentParser()
    parser.add_argument("package", choices=PACKAGES)
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--vad", action="store_true")
    parser.add_argument("--type", default="float32")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    words = PACKAGES[options.package](options)
    found = {}
    for item in json.loads((options.folder / "recordings.json").read_text()):
        given = {"language": item["language"], "initial_prompt": item["prompt"]}
        found[item["name"]] = words(str(options.folder / item["file"]), given)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
