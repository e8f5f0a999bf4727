"""Spoken prompts, synthesized with espeak-ng.

Whisper tiny.en transcribes these sentences with this voice without an error. It makes errors with other voices and with
shorter sentences.
"""

from __future__ import annotations

from pathlib import Path

import soundfile
from data.speech import RECORDINGS

NAMES = {
    "A large red circle on white.": "red-circle",
    "A large green triangle on white.": "green-triangle",
    "A large yellow ring on black.": "yellow-ring",
    "Please tell me the capital of France.": "capital-of-france",
}


def speak(text: str, path: Path) -> Path:
    """Write the recording of one of the sentences in `NAMES` as a WAV file."""
    samples, rate = soundfile.read(RECORDINGS / f"{NAMES[text]}.flac", dtype="int16")
    soundfile.write(path, samples, rate, "PCM_16")
    return path
