"""Server VAD: find the beginning and the end of speech in live audio."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from cyllama import models
from cyllama.server.protocols.realtime import TurnDetection
from cyllama.whisper import WhisperVad

__all__ = ["Turn", "TurnDetector"]

FRAME = 512  # samples, for which the model returns a probability
FRAME_MS = 32
MIN_LOUD = 3  # frames of speech that begin a turn; a click is shorter
HYSTERESIS = 0.15  # how much lower than the threshold the probability of silence is


class Turn(NamedTuple):
    """A part of the audio.

    Attributes
    ----------
    kind : str
        ``"start"`` and ``"speech"`` have samples, ``"stop"`` has none.
    position : int
        Milliseconds of the beginning, or of the end, of the turn.
    samples : ndarray of float32
    """

    kind: Literal["start", "speech", "stop"]
    position: int
    samples: npt.NDArray[np.float32]


class TurnDetector:
    """Splits audio of 16 kHz into turns.

    Parameters
    ----------
    settings : TurnDetection
    position : int
        Samples of the session before the first ones.

    Notes
    -----
    Thread safety: one thread at a time.
    """

    def __init__(self, settings: TurnDetection, position: int = 0) -> None:
        self._vad = WhisperVad(models.resolve("silero-vad"))
        self._settings = settings
        self._position = position
        n_before = MIN_LOUD + round(settings.prefix_padding_ms / FRAME_MS)
        self._before: deque[npt.NDArray[np.float32]] = deque(maxlen=n_before)
        self._rest = np.zeros(0, np.float32)
        self._n_loud = self._n_quiet = 0
        self._is_speech = self._continues = False

    def feed(self, samples: npt.NDArray[np.float32]) -> Iterator[Turn]:
        """Add samples, and yield the parts of turns among them; frames that are incomplete wait for the next call."""
        samples = np.concatenate([self._rest, samples])
        n_frames = len(samples) // FRAME
        self._rest = samples[n_frames * FRAME :]
        if not n_frames:
            return
        probs = self._vad.detect_speech(samples[: n_frames * FRAME], reset=not self._continues)
        self._continues = True
        speech: list[npt.NDArray[np.float32]] = []
        for frame, prob in zip(samples[: n_frames * FRAME].reshape(-1, FRAME), probs, strict=True):
            self._position += FRAME
            if not self._is_speech:
                if self._begins(frame, float(prob)):
                    before = np.concatenate(self._before)
                    yield Turn("start", self._milliseconds(self._position - len(before)), before)
                    self._before.clear()
                continue
            speech.append(frame)
            if self._ends(float(prob)):
                yield Turn("speech", self._milliseconds(self._position), np.concatenate(speech))
                yield Turn("stop", self._milliseconds(self._position), np.zeros(0, np.float32))
                speech = []
        if speech:
            yield Turn("speech", self._milliseconds(self._position), np.concatenate(speech))

    def end_turn(self, n_more: int) -> npt.NDArray[np.float32]:
        """End the turn now, and return the samples that did not fill a frame; `n_more` samples follow them."""
        rest, self._rest = self._rest, np.zeros(0, np.float32)
        self._position += len(rest) + n_more
        self._is_speech = False
        self._before.clear()
        self._n_loud = self._n_quiet = 0
        return rest

    def close(self) -> None:
        """Free the model."""
        self._vad.close()

    def _begins(self, frame: npt.NDArray[np.float32], prob: float) -> bool:
        self._before.append(frame)
        self._n_loud = self._n_loud + 1 if prob >= self._settings.threshold else 0
        self._is_speech = self._n_loud >= MIN_LOUD
        self._n_quiet = 0
        return self._is_speech

    def _ends(self, prob: float) -> bool:
        self._n_quiet = 0 if prob >= self._settings.threshold - HYSTERESIS else self._n_quiet + 1
        self._is_speech = self._n_quiet * FRAME_MS < max(FRAME_MS, self._settings.silence_duration_ms)
        self._n_loud = 0
        return not self._is_speech

    @staticmethod
    def _milliseconds(samples: int) -> int:
        return samples * 1000 // 16_000
