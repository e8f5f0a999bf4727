"""Spoken prompts, synthesized with espeak-ng.

The voice is one that whisper tiny.en transcribes without an error in these sentences. With other voices, and with
shorter sentences, it makes errors.
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
