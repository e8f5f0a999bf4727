"""A short recording with a small encoder context, for tests in which the text does not matter."""

from __future__ import annotations

from cyllama.whisper import WhisperFullParams, WhisperState

SHORT_SECONDS = 4.0  # of jfk.wav
SHORT_TEXT = " And so my fellow Americans asked"
SHORT_CTX = 256  # encoder frames for 5 s: a sixth of a whole window


def transcribe_short(state: WhisperState, samples: object, **values: object) -> str:
    """Transcribe samples with a small encoder context, and return the text."""
    state.full(samples, WhisperFullParams(audio_ctx=SHORT_CTX, **values))  # type: ignore[arg-type]
    return "".join(state.get_segment_text(i) for i in range(state.n_segments))
