"""Voice activity detection with a model that stays loaded."""

from __future__ import annotations

import dataclasses
import os
import threading

from cyllama import models
from cyllama._cancel import Cancel
from cyllama.media._samples import Samples
from cyllama.whisper._chunking import SpeechRange
from cyllama.whisper._vad import WhisperVad
from cyllama.whisper.options import VadOptions
from cyllama.whisper.params import WhisperVadParams

__all__ = ["SpeechDetector"]

DEFAULT_MODEL = "silero-vad"


class SpeechDetector:
    """Finds speech with the last used model. Calls of several threads run one after the other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._name: str | os.PathLike[str] | None = None
        self._vad: WhisperVad | None = None

    def __call__(self, samples: Samples, options: VadOptions, *, cancel: Cancel | None = None) -> list[SpeechRange]:
        """Return start and end of each range of speech, in seconds.

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
