"""Voice activity detection: where in the sound there is speech."""

from __future__ import annotations

import dataclasses
import os
import threading

from cyllama import models
from cyllama.media.samples import Samples
from cyllama.whisper._vad import WhisperVad
from cyllama.whisper.decoding import Cancel
from cyllama.whisper.options import VadOptions
from cyllama.whisper.params import WhisperVadParams
from cyllama.whisper.pieces import Speech

__all__ = ["SpeechDetector"]

DEFAULT_MODEL = "silero-vad"


class SpeechDetector:
    """Keeps the model that was used last; many threads take turns."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._name: str | os.PathLike[str] | None = None
        self._vad: WhisperVad | None = None

    def __call__(self, samples: Samples, options: VadOptions, *, cancel: Cancel | None = None) -> list[Speech]:
        """Return start and end of each part with speech, in seconds.

        Raises
        ------
        FileNotFoundError, ModelLoadError
            The model cannot be loaded.
        CancelledError
            `cancel` was set.
        """
        values = dataclasses.asdict(options)
        name = values.pop("model") or DEFAULT_MODEL
        with self._lock:
            if self._vad is None or self._name != name:
                self._vad, self._name = WhisperVad(os.fspath(models.resolve(name))), name
            return self._vad.segments(samples, WhisperVadParams(**values), cancel=cancel)

    def close(self) -> None:
        """Free the model."""
        with self._lock:
            if self._vad is not None:
                self._vad.close()
            self._vad = None
