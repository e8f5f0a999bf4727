"""The names of openai-whisper: change ``import whisper`` to ``import cyllama.compat.openai_whisper as whisper``.

>>> import cyllama.compat.openai_whisper as whisper
>>> model = whisper.load_model("tiny.en")           # doctest: +SKIP
>>> print(model.transcribe("talk.mp3")["text"])     # doctest: +SKIP

`cyllama.whisper.Whisper` does the work. An argument has its effect, or is rejected by name (`UnsupportedError`);
``fp16`` has none, because the precision is that of the model file. See docs/howto/integrations.md for the differences.
"""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from cyllama.compat._speech import reject, show_progress, thresholds, use_gpu
from cyllama.errors import UnsupportedError
from cyllama.media.audio import SAMPLE_RATE
from cyllama.media.audio import load_audio as _load_audio
from cyllama.media.mel import HOP, log_mel
from cyllama.whisper import AudioInput, Segment, Whisper, WhisperContext, WhisperState
from cyllama.whisper.model_names import HUB_MODELS, resolve_model

__all__ = [
    "DecodingOptions",
    "DecodingResult",
    "Mel",
    "WhisperModel",
    "available_models",
    "decode",
    "detect_language",
    "load_audio",
    "load_model",
    "log_mel_spectrogram",
    "pad_or_trim",
    "transcribe",
]

Samples = npt.NDArray[np.float32]

N_SAMPLES = 30 * SAMPLE_RATE


class Mel(np.ndarray[Any, np.dtype[np.float32]]):
    """A mel spectrogram, shape (n_mels, frames), with the samples it was made from."""

    audio: Samples | None = None

    def to(self, device: object) -> Mel:
        """Return the array itself: it is in the memory of the CPU."""
        return self


@dataclass
class DecodingOptions:
    """Options of `decode`, with the names and defaults of openai-whisper."""

    task: str = "transcribe"
    language: str | None = None
    temperature: float = 0.0
    sample_len: int | None = None
    best_of: int | None = None
    beam_size: int | None = None
    patience: float | None = None
    length_penalty: float | None = None
    prompt: str | list[int] | None = None
    prefix: str | list[int] | None = None
    suppress_tokens: str | list[int] | None = "-1"
    suppress_blank: bool = True
    without_timestamps: bool = False
    max_initial_timestamp: float | None = 1.0
    fp16: bool = True


@dataclass
class DecodingResult:
    """The text of one window."""

    language: str
    text: str
    tokens: list[int] = field(default_factory=list)
    avg_logprob: float = math.nan
    no_speech_prob: float = math.nan
    temperature: float = math.nan
    compression_ratio: float = math.nan


class WhisperModel:
    """A loaded model; `load_model` returns it.

    Attributes
    ----------
    dims : namespace
        ``n_mels``, ``n_vocab``, ``n_audio_ctx``, ``n_text_ctx`` and the sizes of the layers.
    device : str
    """

    def __init__(self, whisper: Whisper, device: str) -> None:
        self._whisper, self.device = whisper, device
        context = self._context
        self.dims = SimpleNamespace(
            n_mels=context.model_n_mels,
            n_vocab=context.n_vocab,
            n_audio_ctx=context.n_audio_ctx,
            n_audio_state=context.model_n_audio_state,
            n_audio_head=context.model_n_audio_head,
            n_audio_layer=context.model_n_audio_layer,
            n_text_ctx=context.n_text_ctx,
            n_text_state=context.model_n_text_state,
            n_text_head=context.model_n_text_head,
            n_text_layer=context.model_n_text_layer,
        )

    @property
    def _context(self) -> WhisperContext:
        context = self._whisper._context
        if not isinstance(context, WhisperContext):
            raise UnsupportedError("openai-whisper has no Parakeet models; use cyllama.whisper.Whisper")
        return context

    @property
    def is_multilingual(self) -> bool:
        """Whether the model supports other languages than English."""
        return self._whisper.is_multilingual

    def transcribe(
        self, audio: AudioInput, *, verbose: bool | None = None, fp16: bool = True, **options: Any
    ) -> dict[str, Any]:
        """Transcribe a recording.

        Parameters
        ----------
        audio : path or array of 16,000 Hz
        verbose : bool, optional
            True prints the segments, False shows a progress bar.
        fp16 : bool
            Without effect: the precision is that of the model file.
        **options
            Those of openai-whisper and of `cyllama.whisper.transcribe`.

        Returns
        -------
        dict
            ``text``, ``segments`` and ``language``.
        """
        given: dict[str, Any] = {"suppress_tokens": "-1", "max_initial_timestamp": 1.0} | thresholds(options)
        result = self._whisper(
            audio,
            on_segment=_print_segment if verbose else None,
            on_progress=show_progress() if verbose is False else None,
            **given,
        )
        segments = [segment.to_dict() for segment in result.segments]
        return {"text": "".join(part["text"] for part in segments), "segments": segments, "language": result.language}

    def detect_language(self, mel: Mel) -> tuple[int, dict[str, float]]:
        """Return the token of the language of a spectrogram, and the probability of each language."""
        if not self.is_multilingual:
            raise ValueError("the model supports English only; use a multilingual one, such as 'base'")
        with WhisperState(self._context) as state:
            state.set_mel(np.asarray(mel))
            code, found = state.lang_auto_detect()
        return self._context.token_lang(code), dict(found)

    def decode(self, mel: Mel, options: DecodingOptions | None = None, **changes: Any) -> DecodingResult:
        """Transcribe the 30 s of a spectrogram of `log_mel_spectrogram`."""
        audio = getattr(mel, "audio", None)
        if audio is None:
            raise UnsupportedError("mel is not of log_mel_spectrogram(): the engine decodes samples")
        given = asdict(options or DecodingOptions()) | changes
        given["initial_prompt"], given["max_new_tokens"] = given.pop("prompt"), given.pop("sample_len")
        del given["fp16"]
        result = self._whisper(audio[:N_SAMPLES], **{name: value for name, value in given.items() if value is not None})
        parts = result.segments
        text = "".join(part.text for part in parts).strip()
        count = max(1, sum(len(part.tokens) for part in parts))
        return DecodingResult(
            language=result.language,
            text=text,
            tokens=[token for part in parts for token in part.tokens],
            avg_logprob=sum(part.avg_logprob * len(part.tokens) for part in parts) / count,
            no_speech_prob=parts[0].no_speech_prob if parts else math.nan,
            temperature=given["temperature"],
            compression_ratio=max((part.compression_ratio for part in parts), default=math.nan),
        )


def load_model(
    name: str, device: str | None = None, download_root: str | None = None, in_memory: bool = False
) -> WhisperModel:
    """Load a model.

    Parameters
    ----------
    name : str
        ``"tiny"`` to ``"large-v3"``, ``"turbo"``, or a file in whisper.cpp's format.
    device : str, optional
        ``"cpu"`` or ``"cuda"``; default: a GPU if there is one.
    """
    reject({"download_root": download_root, "in_memory": in_memory}, {"download_root": (), "in_memory": (False,)})
    return WhisperModel(Whisper(os.fspath(resolve_model(name)), use_gpu=use_gpu(device)), device or "cpu")


def available_models() -> list[str]:
    """Return the names of models."""
    return list(HUB_MODELS)


def transcribe(model: WhisperModel, audio: AudioInput, **options: Any) -> dict[str, Any]:
    """Transcribe a recording; see `WhisperModel.transcribe`."""
    return model.transcribe(audio, **options)


def detect_language(model: WhisperModel, mel: Mel) -> tuple[int, dict[str, float]]:
    """Return the language of a spectrogram; see `WhisperModel.detect_language`."""
    return model.detect_language(mel)


def decode(model: WhisperModel, mel: Mel, options: DecodingOptions | None = None, **changes: Any) -> DecodingResult:
    """Transcribe a spectrogram; see `WhisperModel.decode`."""
    return model.decode(mel, options, **changes)


def load_audio(file: Any, sr: int = SAMPLE_RATE) -> Samples:
    """Return a recording as mono float32 samples."""
    return _load_audio(file, target_rate=sr)


def pad_or_trim(array: Samples, length: int = N_SAMPLES, *, axis: int = -1) -> Samples:
    """Return an array of one length, with zeros at the end or without its end."""
    array = np.asarray(array).take(range(min(length, array.shape[axis])), axis)
    missing = [(0, 0)] * array.ndim
    missing[axis] = (0, length - array.shape[axis])
    return np.pad(array, missing)


def log_mel_spectrogram(audio: Any, n_mels: int = 80, padding: int = 0) -> Mel:
    """Return the mel spectrogram of a recording or of samples, shape (n_mels, samples // 160)."""
    samples = np.asarray(audio, np.float32) if isinstance(audio, np.ndarray) else load_audio(audio)
    samples = np.pad(samples, (0, padding))
    mel = log_mel(samples, n_mels)[:, : len(samples) // HOP].view(Mel)
    mel.audio = samples
    return mel


def _print_segment(segment: Segment) -> None:
    def clock(seconds: float) -> str:
        minutes, rest = divmod(round(seconds * 1000), 60_000)
        hours, minutes = divmod(minutes, 60)
        shown = f"{minutes:02d}:{rest // 1000:02d}.{rest % 1000:03d}"
        return f"{hours:02d}:{shown}" if hours else shown

    print(f"[{clock(segment.start)} --> {clock(segment.end)}] {segment.text}", flush=True)
