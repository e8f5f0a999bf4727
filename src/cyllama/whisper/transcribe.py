"""Speech to text: `transcribe` for one recording, `Whisper` to keep a model loaded."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

import cyllama
from cyllama import models
from cyllama.errors import ClosedError, UnsupportedError
from cyllama.media.audio import SAMPLE_RATE, AudioStream
from cyllama.media.samples import Samples
from cyllama.whisper import parakeet
from cyllama.whisper._model import WhisperContext
from cyllama.whisper._parakeet import ParakeetContext
from cyllama.whisper._state import WhisperState
from cyllama.whisper.alignment import context_params
from cyllama.whisper.decoding import Cancel, Decoder, PieceDecoder, decode, decode_together
from cyllama.whisper.lazy import lazily
from cyllama.whisper.options import TranscribeOptions, options_from
from cyllama.whisper.params import WhisperFullParams
from cyllama.whisper.pieces import WINDOW_SECONDS, Piece, Speech, find_speech, limit_pieces, plain_pieces, speech_pieces
from cyllama.whisper.results import Segment, Transcription, TranscriptionInfo
from cyllama.whisper.speech import SpeechDetector

__all__ = ["Whisper", "transcribe"]

HEAD_BYTES = 128  # of a model file, to find out its kind
ENGLISH = "en"
ENGLISH_NAMES = ("en", "english")


@dataclass(frozen=True)
class _Job:
    """One recording, ready to be transcribed."""

    decoder: PieceDecoder
    stream: AudioStream
    speech: list[Speech] | None
    info: TranscriptionInfo
    max_seconds: float | None = None  # of one piece

    @property
    def options(self) -> TranscribeOptions:
        return self.decoder.options

    def __call__(
        self,
        emit: Callable[[Segment], None],
        progress: Callable[[float], object] | None,
        cancel: Cancel | None,
    ) -> None:
        run = decode_together if self.options.batch_size > 1 else decode
        run(self.decoder, self._pieces(), self.stream.duration, emit=emit, progress=progress, cancel=cancel)

    def _pieces(self) -> Iterator[Piece]:
        found = self._whole_pieces()
        return found if self.max_seconds is None else limit_pieces(found, self.max_seconds)

    def _whole_pieces(self) -> Iterator[Piece]:
        if self.speech is None:
            return plain_pieces(self.stream)
        if self.options.batch_size > 1:
            return speech_pieces(self.stream, self.speech, WINDOW_SECONDS)
        return speech_pieces(self.stream, self.speech)


class Whisper:
    """A loaded model.

    Parameters
    ----------
    model : str, path, bytes or binary file object
        A name of `cyllama.models` (``"tiny.en"``), a file in whisper.cpp's format, its content, or an open file. The
        file is a Whisper or a Parakeet model; its header says which.
    dtw : bool or str
        Times of words by aligning the attention of the model with the sound; the name of the alignment heads
        (``"tiny.en"``), or True for those of the model. Turns flash attention off.
    cancel : object with ``is_set()``, optional
        Stops the loading.
    **params
        ``use_gpu``, ``gpu_device``, ``flash_attn``: see `WhisperContextParams`. Parakeet models take the first two.

    Raises
    ------
    FileNotFoundError
        No such file, and no such name; the nearest names are given.
    ModelLoadError
        It is no whisper model, or is damaged.
    UnsupportedError
        `dtw` or ``flash_attn`` with a Parakeet model.
    CancelledError
        `cancel` was set.

    Notes
    -----
    Thread safety: may be called from many threads at once; they share the weights, and each has a state of its own.
    The GIL is released while it loads and computes.
    """

    def __init__(self, model: Any = "tiny.en", *, dtw: bool | str = False, cancel: Cancel | None = None, **params: Any):
        self._closed = False
        self._detector = SpeechDetector()
        self._context = _load(model, dtw, params, cancel)

    @property
    def architecture(self) -> str:
        """``"whisper"`` or ``"parakeet"``."""
        return "parakeet" if isinstance(self._context, ParakeetContext) else "whisper"

    @property
    def is_multilingual(self) -> bool:
        """Whether it knows other languages than English; False for a Parakeet model, whose file does not say."""
        return isinstance(self._context, WhisperContext) and bool(self._context.is_multilingual)

    @property
    def languages(self) -> dict[str, str]:
        """The languages that it knows: code and English name; empty for a Parakeet model, whose file does not say."""
        if isinstance(self._context, ParakeetContext):
            return {}
        return dict(self._context.languages) if self.is_multilingual else {ENGLISH: "english"}

    def __call__(
        self,
        audio: Any,
        *,
        sample_rate: int | None = None,
        on_segment: Callable[[Segment], object] | None = None,
        on_progress: Callable[[float], object] | None = None,
        cancel: Cancel | None = None,
        **options: Any,
    ) -> Transcription:
        """Transcribe a recording; see `cyllama.whisper.transcribe`."""
        job = self._job(audio, sample_rate, options, cancel)
        segments: list[Segment] = []

        def emit(segment: Segment) -> None:
            segments.append(segment)
            if on_segment is not None:
                on_segment(segment)

        job(emit, on_progress, cancel)
        return Transcription(tuple(segments), job.info, job.options.task)

    def transcribe(
        self,
        audio: Any,
        *,
        sample_rate: int | None = None,
        on_progress: Callable[[float], object] | None = None,
        cancel: Cancel | None = None,
        **options: Any,
    ) -> tuple[Iterator[Segment], TranscriptionInfo]:
        """Transcribe as the segments are asked for.

        Parameters
        ----------
        audio, sample_rate, on_progress, cancel, **options
            As of `cyllama.whisper.transcribe`.

        Returns
        -------
        iterator of Segment
            Nothing is transcribed before the first ``next()``, and no more than one segment ahead. Closing or dropping
            the iterator stops the engine.
        TranscriptionInfo
            Language and duration. The language is detected, and speech found, before this returns.
        """
        job = self._job(audio, sample_rate, options, cancel)
        return lazily(lambda emit, stop: job(emit, on_progress, stop), cancel), job.info

    def detect_language(
        self, audio: Any, *, sample_rate: int | None = None, cancel: Cancel | None = None
    ) -> tuple[str, float, tuple[tuple[str, float], ...]]:
        """Tell the language of the first 30 s.

        Returns
        -------
        str
            Code, such as ``"en"``.
        float
            How likely it is, 0 to 1.
        tuple of (str, float)
            All languages, the most likely first.

        Raises
        ------
        ValueError
            The model knows English only, or there is no sound.
        UnsupportedError
            It is a Parakeet model, which does not report the language.

        Notes
        -----
        Releases the GIL. Source: ``whisper_lang_auto_detect_with_state``, whisper.h.
        """
        if isinstance(self._context, ParakeetContext):
            raise UnsupportedError(
                "detect_language() needs a Whisper model: Parakeet models do not report the language"
            )
        if not self.is_multilingual:
            raise ValueError("the model knows English only; take a multilingual one, such as 'base'")
        stream = AudioStream(audio, sample_rate=sample_rate)
        return self._detect(stream.read(0.0, WINDOW_SECONDS), None, cancel)

    def check_options(self, options: Mapping[str, Any]) -> TranscribeOptions:
        """Return the options of a transcription by this model.

        Raises
        ------
        TypeError, UnsupportedError, ValueError
            As of `cyllama.whisper.transcribe`.
        """
        found = options_from(options)
        if isinstance(self._context, ParakeetContext):
            parakeet.check_options(found, self._context.n_audio_ctx)
            return found
        self._check_task(found)
        if found.language not in (None, "auto"):
            self._context.language_code(found.language)
        return found

    def close(self) -> None:
        """Free the model.

        Raises
        ------
        InUseError
            A transcription is running.
        """
        self._context.close()
        self._closed = True
        self._detector.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _state(self) -> WhisperState:
        """A state of its own for each transcription: made in milliseconds, and nothing is left over from another."""
        if self._closed:
            raise ClosedError("this Whisper is closed")
        return WhisperState(self._whisper)

    @property
    def _whisper(self) -> WhisperContext:
        assert isinstance(self._context, WhisperContext)
        return self._context

    def _job(self, audio: Any, sample_rate: int | None, options: dict[str, Any], cancel: Cancel | None) -> _Job:
        if self._closed:
            raise ClosedError("this Whisper is closed")
        chosen = self.check_options(options)
        stream = AudioStream(audio, sample_rate=sample_rate, clip=chosen.clip_timestamps, allow_empty=True)
        speech = None
        if chosen.vad_filter or chosen.batch_size > 1:
            speech = find_speech(
                plain_pieces(stream), lambda samples: self._detector(samples, chosen.vad(), cancel=cancel)
            )
        if isinstance(self._context, ParakeetContext):
            language, probability, every = parakeet.UNKNOWN_LANGUAGE, 0.0, None
        else:
            language, probability, every = self._language(chosen, stream, speech, cancel)
        info = TranscriptionInfo(
            language=language,
            language_probability=probability,
            duration=stream.duration,
            duration_after_vad=stream.duration if speech is None else sum(end - start for start, end in speech),
            all_language_probs=every,
            transcription_options=chosen,
            vad_options=None if speech is None else chosen.vad(),
        )
        if isinstance(self._context, ParakeetContext):
            longest = parakeet.max_seconds(chosen, self._context.n_audio_ctx)
            decoder = parakeet.ParakeetDecoder(self._context, chosen, _threads(chosen))
            return _Job(decoder, stream, speech, info, longest)
        params = self._params(chosen, language)
        spoken = ENGLISH if chosen.task == "translate" else language
        return _Job(Decoder(self._state, params, chosen, spoken, self._whisper.token_eot), stream, speech, info)

    def _check_task(self, options: TranscribeOptions) -> None:
        if self.is_multilingual:
            return
        if options.task == "translate":
            raise ValueError("task is 'translate', but the model knows English only; take a multilingual one")
        if options.language is not None and options.language.casefold() not in ENGLISH_NAMES:
            raise ValueError(f"language is {options.language!r}, but the model knows English only")

    def _language(
        self, options: TranscribeOptions, stream: AudioStream, speech: list[Speech] | None, cancel: Cancel | None
    ) -> tuple[str, float, tuple[tuple[str, float], ...] | None]:
        if not self.is_multilingual:
            return ENGLISH, 1.0, None
        if options.language not in (None, "auto"):
            return self._whisper.language_code(options.language), 1.0, None
        if speech is None:
            start = stream.clips[0][0]
            samples = stream.read(start, start + WINDOW_SECONDS)
        else:
            first = next(speech_pieces(stream, speech, WINDOW_SECONDS), None)
            samples = np.zeros(0, np.float32) if first is None else first.samples
        if not len(samples):
            return ENGLISH, 0.0, None  # there is nothing to hear
        return self._detect(samples[: round(WINDOW_SECONDS * SAMPLE_RATE)], options.n_threads, cancel)

    def _detect(
        self, samples: Samples, n_threads: int | None, cancel: Cancel | None
    ) -> tuple[str, float, tuple[tuple[str, float], ...]]:
        with self._state() as state:
            state.pcm_to_mel(samples, n_threads=n_threads, cancel=cancel)
            code, found = state.lang_auto_detect(n_threads=n_threads, cancel=cancel)
        every = tuple(sorted(found.items(), key=lambda pair: -pair[1]))
        return code, found[code], every

    def _params(self, options: TranscribeOptions, language: str) -> WhisperFullParams:
        """What the engine is told for the first piece."""
        fields = options.engine_fields()
        prompt = " ".join(text.strip() for text in (options.hotwords, options.initial_prompt) if isinstance(text, str))
        tokens = None if isinstance(options.initial_prompt, str) else options.initial_prompt
        if tokens is not None:
            tokens = [*(self._whisper.tokenize(" " + prompt) if prompt else ()), *map(int, tokens)]
        elif prompt:
            tokens = self._whisper.tokenize(" " + prompt)
        if tokens and not options.condition_on_previous_text:
            # room for the prompt alone, before every window
            fields |= {"carry_initial_prompt": True, "n_max_text_ctx": len(tokens) + 1}
        fields["n_threads"] = _threads(options)
        return WhisperFullParams(language=language, prompt_tokens=tokens or None, **fields)


def _load(
    model: Any, dtw: bool | str, params: Mapping[str, Any], cancel: Cancel | None
) -> WhisperContext | ParakeetContext:
    """Load a model of the kind that its header says."""
    if isinstance(model, (bytes, bytearray, memoryview)):
        head = bytes(model[:HEAD_BYTES])
        if parakeet.is_parakeet(head):
            return ParakeetContext.from_bytes(model, parakeet.context_params(dtw, params), cancel=cancel)
        return WhisperContext.from_bytes(model, context_params(head, dtw, params), cancel=cancel)
    if callable(getattr(model, "read", None)):
        position = model.tell()
        head = model.read(HEAD_BYTES)
        model.seek(position)
        if isinstance(head, bytes) and parakeet.is_parakeet(head):
            return ParakeetContext.from_fileobj(model, parakeet.context_params(dtw, params), cancel=cancel)
        return WhisperContext.from_fileobj(model, context_params(head, dtw, params), cancel=cancel)
    path = models.resolve(model)
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    if parakeet.is_parakeet(head):
        return ParakeetContext(os.fspath(path), parakeet.context_params(dtw, params), cancel=cancel)
    return WhisperContext(os.fspath(path), context_params(head, dtw, params), cancel=cancel)


def _threads(options: TranscribeOptions) -> int | None:
    """Return the threads of one call; parts that are transcribed at the same time share the budget."""
    if options.batch_size > 1 and options.n_threads is None:
        return max(1, int(cyllama.get_threads()) // options.batch_size)
    return options.n_threads


def transcribe(
    audio: Any,
    model: Any = "tiny.en",
    *,
    sample_rate: int | None = None,
    on_segment: Callable[[Segment], object] | None = None,
    on_progress: Callable[[float], object] | None = None,
    cancel: Cancel | None = None,
    **options: Any,
) -> Transcription:
    """Transcribe a recording.

    Parameters
    ----------
    audio : path, bytes, binary file object, array, or (sample_rate, array)
        Any sound; see `AudioStream`.
    model : str, path, bytes, binary file object or Whisper
        As of `Whisper`, which should be used for many recordings: the model is loaded once then.
    sample_rate : int, optional
        Of an array, in Hz; 16,000 by default.
    on_segment : callable, optional
        Called with each `Segment` as soon as it is known.
    on_progress : callable, optional
        Called with 0.0 to 1.0.
    cancel : object with ``is_set()``, optional
        Such as ``threading.Event``; obeyed within a second.
    **options
        The fields of `TranscribeOptions`: ``language``, ``task``, ``word_timestamps``, ``vad_filter``, ``beam_size``,
        ``initial_prompt``, ``batch_size``, ... Other names that openai-whisper, faster-whisper and whisper.cpp use for
        them are understood.

    Returns
    -------
    Transcription
        With ``text``, ``segments``, ``words``, ``language``, ``duration``; sound without samples has no segments.

    Raises
    ------
    TypeError
        There is no such option; the nearest is named.
    UnsupportedError
        whisper.cpp has nothing like that option, or a Parakeet model does not support it.
    ValueError
        A value is out of range, or the language is unknown.
    MediaError
        It is no sound, or is truncated.
    FileNotFoundError, ModelLoadError, TranscribeError, CancelledError

    Notes
    -----
    An exception in a callback stops the transcription and is raised. The GIL is released while it computes. Source:
    ``whisper_full_with_state``, whisper.h.
    """
    given = dict(sample_rate=sample_rate, on_segment=on_segment, on_progress=on_progress, cancel=cancel, **options)
    if isinstance(model, Whisper):
        return model(audio, **given)
    options_from(options)  # before anything is loaded
    with Whisper(model, cancel=cancel) as whisper:
        return whisper(audio, **given)
