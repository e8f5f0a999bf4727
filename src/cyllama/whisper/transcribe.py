"""Transcribe speech: `transcribe` for one recording, `Whisper` to keep a model loaded."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, Generic, Protocol, Self, Unpack, cast

import numpy as np
import numpy.typing as npt

from cyllama._cancel import Cancel
from cyllama._native.memory import return_memory
from cyllama.errors import ClosedError, UnsupportedError
from cyllama.media._samples import Samples
from cyllama.media.audio import SAMPLE_RATE, AudioStream
from cyllama.whisper._chunking import (
    WINDOW_SECONDS,
    Chunk,
    SpeechRange,
    audio_chunks,
    find_speech,
    limit_chunks,
    open_stream,
    speech_chunks,
)
from cyllama.whisper._decoding import (
    ChunkDecoder,
    OnProgress,
    OnSegment,
    State,
    WhisperDecoder,
    decode,
    decode_parallel,
)
from cyllama.whisper._dtw import context_params
from cyllama.whisper._group import WhisperGroup
from cyllama.whisper._model import WhisperContext
from cyllama.whisper._option_types import LoadOptionsDict, TranscribeOptionsDict
from cyllama.whisper._parakeet import ParakeetContext
from cyllama.whisper._parakeet_decoder import (
    UNKNOWN_LANGUAGE,
    ParakeetDecoder,
    check_parakeet_options,
    is_parakeet,
    max_chunk_seconds,
    parakeet_context_params,
)
from cyllama.whisper._segment_iterator import SegmentIterator
from cyllama.whisper._state import WhisperState
from cyllama.whisper._vad_filter import SpeechDetector
from cyllama.whisper.model_names import model_file
from cyllama.whisper.options import TranscribeOptions, options_from, reject_unsupported
from cyllama.whisper.params import WhisperFullParams
from cyllama.whisper.results import DetectedLanguage, Segment, Transcription, TranscriptionInfo

__all__ = ["AudioInput", "ModelInput", "Whisper", "transcribe"]


class SupportsArray(Protocol):
    """An object that NumPy converts, such as a tensor of PyTorch."""

    def __array__(self, *args: Any, **kwargs: Any) -> npt.NDArray[Any]:
        """Return an array."""


ArrayInput = npt.NDArray[Any] | SupportsArray
AudioInput = (
    str
    | os.PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | BinaryIO
    | ArrayInput
    | tuple[int, ArrayInput]
    | AudioStream
)
"""A path, the content of a file, an open binary file, samples, (sample rate in Hz, samples), or an `AudioStream`."""
ModelInput = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO
"""A name of `cyllama.models`, a path, the content of a model file, or an open binary file."""

HEAD_BYTES = 128  # of a model file, which has its architecture
ENGLISH = "en"
ENGLISH_NAMES = ("en", "english")


@dataclass(frozen=True)
class _Task(Generic[State]):
    """A transcription that is ready to run."""

    decoder: ChunkDecoder[State]
    stream: AudioStream
    speech: list[SpeechRange] | None
    info: TranscriptionInfo
    max_seconds: float | None = None  # of a chunk

    @property
    def options(self) -> TranscribeOptions:
        return self.decoder.options

    def run(self, on_segment: OnSegment, on_progress: OnProgress | None, cancel: Cancel | None) -> None:
        run = decode_parallel if self.options.batch_size > 1 else decode
        run(
            self.decoder,
            self._chunks(self.stream.with_cancel(cancel)),
            self.stream.duration,
            on_segment=on_segment,
            on_progress=on_progress,
            cancel=cancel,
        )

    def _chunks(self, stream: AudioStream) -> Iterator[Chunk]:
        if self.speech is None:
            chunks = audio_chunks(stream)
        elif self.options.batch_size > 1:
            chunks = speech_chunks(stream, self.speech, WINDOW_SECONDS)
        else:
            chunks = speech_chunks(stream, self.speech)
        return chunks if self.max_seconds is None else limit_chunks(chunks, self.max_seconds)


class Whisper:
    """A loaded model.

    Parameters
    ----------
    model : str, path, bytes or binary file object
        A name of `cyllama.models` (``"tiny.en"``), a name of openai-whisper or faster-whisper (``"turbo"``: downloaded
        from the Hugging Face hub), a file in whisper.cpp's format, its content, or an open file: Whisper or Parakeet.
    dtw : bool or str, optional
        Align words with the audio by dynamic time warping of the attention: the name of the alignment heads, True for
        those of the model (the default for Whisper models), or False for the times of the timestamp tokens.
    cancel : Cancel, optional
        Stops loading.
    **params
        ``use_gpu``, ``gpu_device``, ``flash_attn``: see `WhisperContextParams`. Parakeet models take the first two.

    Raises
    ------
    FileNotFoundError
        There is no such file or name; the message suggests similar names.
    ModelLoadError
        The file is not a model of whisper.cpp, or is damaged.
    UnsupportedError
        `dtw` or ``flash_attn`` with a Parakeet model.
    CancelledError
        `cancel` was set.

    Notes
    -----
    Thread safety: several threads may call it at once. They share the weights, and each call has its own state.
    Releases the GIL while loading and computing.
    """

    def __init__(
        self,
        model: ModelInput = "tiny.en",
        *,
        dtw: bool | str | None = None,
        cancel: Cancel | None = None,
        **params: Unpack[LoadOptionsDict],
    ) -> None:
        self._closed = False
        self._detector = SpeechDetector()
        self._context = _load_context(model, dtw, reject_unsupported(params, loading=True), cancel)
        self._name = model if isinstance(model, str) else type(model).__name__

    def __repr__(self) -> str:
        status = ", closed" if self._closed else ""
        return f"Whisper({self._name!r}, {self.architecture}{status})"

    @property
    def architecture(self) -> str:
        """``"whisper"`` or ``"parakeet"``."""
        return "parakeet" if isinstance(self._context, ParakeetContext) else "whisper"

    @property
    def is_multilingual(self) -> bool:
        """Whether the model supports other languages than English; False for Parakeet models, where it is unknown."""
        return isinstance(self._context, WhisperContext) and bool(self._context.is_multilingual)

    @property
    def languages(self) -> dict[str, str]:
        """The supported languages: code and English name; empty for Parakeet models, where they are unknown."""
        if isinstance(self._context, ParakeetContext):
            return {}
        return dict(self._context.languages) if self.is_multilingual else {ENGLISH: "english"}

    def __call__(
        self,
        audio: AudioInput,
        *,
        sample_rate: int | None = None,
        on_segment: OnSegment | None = None,
        on_progress: OnProgress | None = None,
        cancel: Cancel | None = None,
        **options: Unpack[TranscribeOptionsDict],
    ) -> Transcription:
        """Transcribe a recording; see `cyllama.whisper.transcribe`."""
        task = self._prepare(audio, sample_rate, options, cancel)
        segments: list[Segment] = []

        def collect(segment: Segment) -> None:
            segments.append(segment)
            if on_segment is not None:
                on_segment(segment)

        task.run(collect, on_progress, cancel)
        # of a damaged file the header may say more
        info = replace(task.info, duration=min(task.info.duration, task.stream.duration))
        return Transcription(tuple(segments), info, task.options.task)

    def transcribe(
        self,
        audio: AudioInput,
        *,
        sample_rate: int | None = None,
        on_progress: OnProgress | None = None,
        cancel: Cancel | None = None,
        **options: Unpack[TranscribeOptionsDict],
    ) -> tuple[SegmentIterator, TranscriptionInfo]:
        """Transcribe a recording while iterating over its segments.

        Parameters
        ----------
        audio, sample_rate, on_progress, cancel, **options
            As of `cyllama.whisper.transcribe`. A file is opened by the call, and may be removed afterwards.

        Returns
        -------
        SegmentIterator
            The transcription starts with the first ``next()`` and is at most one segment ahead. Closing or dropping the
            iterator stops it.
        TranscriptionInfo
            Language and duration. Language detection and the VAD filter have run when the method returns.
        """
        task = self._prepare(audio, sample_rate, options, cancel)
        return SegmentIterator(lambda on_segment, stop: task.run(on_segment, on_progress, stop), cancel), task.info

    def detect_language(
        self, audio: AudioInput, *, sample_rate: int | None = None, cancel: Cancel | None = None
    ) -> DetectedLanguage:
        """Detect the language of the first 30 s.

        Raises
        ------
        ValueError
            The model supports English only, or the audio is empty.
        UnsupportedError
            The model is a Parakeet model, which does not report the language.

        Notes
        -----
        Releases the GIL. Source: ``whisper_lang_auto_detect_with_state``, whisper.h.
        """
        if isinstance(self._context, ParakeetContext):
            raise UnsupportedError(
                "detect_language() needs a Whisper model: Parakeet models do not report the language"
            )
        if not self.is_multilingual:
            raise ValueError("the model supports English only; use a multilingual one, such as 'base'")
        stream = open_stream(audio, sample_rate, None, cancel, allow_empty=False)
        return self._detect(stream.read(0.0, WINDOW_SECONDS), None, cancel)

    def check_options(self, options: Mapping[str, Any]) -> TranscribeOptions:
        """Check the options of a transcription with this model.

        Raises
        ------
        TypeError, UnsupportedError, ValueError
            As of `cyllama.whisper.transcribe`.
        """
        found = options_from(options)
        if isinstance(self._context, ParakeetContext):
            check_parakeet_options(found, self._context.n_audio_ctx)
            return found
        self._check_task(found)
        if found.language is not None:
            self._context.language_code(found.language)
        return found

    def prompt_tokens(self, text: str) -> list[int]:
        """Return the tokens of a prompt, as ``initial_prompt`` takes them, for a Whisper model."""
        return list(self._whisper.tokenize(" " + text.strip()))

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
        return_memory()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _new_state(self) -> WhisperState:
        """Return a state for one transcription. Creating one takes milliseconds."""
        if self._closed:
            raise ClosedError("this Whisper is closed")
        return WhisperState(self._whisper)

    def _new_group(self, n_states: int) -> WhisperGroup:
        """Return a group of states for one transcription."""
        if self._closed:
            raise ClosedError("this Whisper is closed")
        return WhisperGroup(self._whisper, n_states)

    @property
    def _whisper(self) -> WhisperContext:
        assert isinstance(self._context, WhisperContext)
        return self._context

    def _prepare(
        self, audio: AudioInput, sample_rate: int | None, options: Mapping[str, Any], cancel: Cancel | None
    ) -> _Task[Any]:
        """Check the options, open the audio, find speech and detect the language."""
        if self._closed:
            raise ClosedError("this Whisper is closed")
        chosen = self.check_options(options)
        stream = open_stream(audio, sample_rate, chosen.clip_timestamps, cancel)
        speech = None
        if chosen.vad_filter or chosen.batch_size > 1:
            speech = find_speech(
                audio_chunks(stream), lambda samples: self._detector(samples, chosen.vad(), cancel=cancel)
            )
        if isinstance(self._context, ParakeetContext):
            detected = DetectedLanguage(UNKNOWN_LANGUAGE, 0.0, ())
        else:
            detected = self._find_language(chosen, stream, speech, cancel)
        info = TranscriptionInfo(
            language=detected.language,
            language_probability=detected.probability,
            duration=stream.duration,
            duration_after_vad=stream.duration if speech is None else sum(end - start for start, end in speech),
            all_language_probs=detected.all_probabilities or None,
            transcription_options=chosen,
            vad_options=None if speech is None else chosen.vad(),
        )
        if isinstance(self._context, ParakeetContext):
            longest = max_chunk_seconds(chosen, self._context.n_audio_ctx)
            return _Task(ParakeetDecoder(self._context, chosen), stream, speech, info, longest)
        params = self._full_params(chosen, detected.language)
        text_language = ENGLISH if chosen.task == "translate" else detected.language
        decoder = WhisperDecoder(
            self._new_state, self._new_group, params, chosen, text_language, self._whisper.token_eot
        )
        return _Task(decoder, stream, speech, info)

    def _check_task(self, options: TranscribeOptions) -> None:
        if self.is_multilingual:
            return
        if options.task == "translate":
            raise ValueError("task is 'translate', but the model supports English only; use a multilingual one")
        if options.language is not None and options.language not in ENGLISH_NAMES:
            raise ValueError(f"language is {options.language!r}, but the model supports English only")

    def _find_language(
        self, options: TranscribeOptions, stream: AudioStream, speech: list[SpeechRange] | None, cancel: Cancel | None
    ) -> DetectedLanguage:
        """Return the language of the options, or detect it in the first window."""
        if not self.is_multilingual:
            return DetectedLanguage(ENGLISH, 1.0, ())
        if options.language is not None:
            return DetectedLanguage(self._whisper.language_code(options.language), 1.0, ())
        if speech is None:
            start = stream.clips[0][0]
            samples = stream.read(start, start + WINDOW_SECONDS)
        else:
            first = next(speech_chunks(stream, speech, WINDOW_SECONDS), None)
            samples = np.zeros(0, np.float32) if first is None else first.samples
        if not len(samples):
            return DetectedLanguage(ENGLISH, 0.0, ())  # the audio is empty or has no speech
        return self._detect(samples[: round(WINDOW_SECONDS * SAMPLE_RATE)], options.n_threads, cancel)

    def _detect(self, samples: Samples, n_threads: int | None, cancel: Cancel | None) -> DetectedLanguage:
        with self._new_state() as state:
            state.pcm_to_mel(samples, n_threads=n_threads, cancel=cancel)
            code, found = state.lang_auto_detect(n_threads=n_threads, cancel=cancel)
        return DetectedLanguage(code, found[code], tuple(sorted(found.items(), key=lambda pair: -pair[1])))

    def _full_params(self, options: TranscribeOptions, language: str) -> WhisperFullParams:
        """Return the parameters of the engine for the first chunk."""
        fields = options.engine_fields()
        prompt = " ".join(text.strip() for text in (options.hotwords, options.initial_prompt) if isinstance(text, str))
        tokens = None if isinstance(options.initial_prompt, str) else options.initial_prompt
        if tokens is not None:
            tokens = [*(self._whisper.tokenize(" " + prompt) if prompt else ()), *map(int, tokens)]
        elif prompt:
            tokens = self._whisper.tokenize(" " + prompt)
        if tokens and not options.condition_on_previous_text:
            # the context of every window is the prompt
            fields |= {"carry_initial_prompt": True, "n_max_text_ctx": len(tokens) + 1}
        return WhisperFullParams(language=language, prompt_tokens=tokens or None, **fields)


def _load_context(
    model: ModelInput, dtw: bool | str | None, params: Mapping[str, Any], cancel: Cancel | None
) -> WhisperContext | ParakeetContext:
    """Load a model with the architecture of its header."""
    kind: type[WhisperContext] | type[ParakeetContext]
    if isinstance(model, (bytes, bytearray, memoryview)):
        kind, chosen = _choose_context(bytes(model[:HEAD_BYTES]), dtw, params)
        return kind.from_bytes(model, chosen, cancel=cancel)
    if callable(getattr(model, "read", None)):
        file = cast(BinaryIO, model)
        position = file.tell()
        head = file.read(HEAD_BYTES)
        file.seek(position)
        kind, chosen = _choose_context(head, dtw, params)
        return kind.from_fileobj(file, chosen, cancel=cancel)
    with model_file(cast("str | os.PathLike[str]", model), HEAD_BYTES) as (path, head):
        kind, chosen = _choose_context(head, dtw, params)
        return kind(path, chosen, cancel=cancel)


def _choose_context(head: object, dtw: bool | str | None, params: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the class of a model and its parameters, by the first bytes of its file."""
    head = head if isinstance(head, bytes) else b""  # loading rejects a file in text mode
    if is_parakeet(head):
        return ParakeetContext, parakeet_context_params(dtw, params)
    return WhisperContext, context_params(head, dtw, params)


def transcribe(
    audio: AudioInput,
    model: ModelInput | Whisper = "tiny.en",
    *,
    sample_rate: int | None = None,
    on_segment: OnSegment | None = None,
    on_progress: OnProgress | None = None,
    cancel: Cancel | None = None,
    **options: Unpack[TranscribeOptionsDict],
) -> Transcription:
    """Transcribe a recording.

    Parameters
    ----------
    audio : path, bytes, binary file object, array, or (sample_rate, array)
        The recording; see `AudioStream`.
    model : str, path, bytes, binary file object or Whisper
        A model as in `Whisper`, or a loaded `Whisper`, which saves loading for each recording.
    sample_rate : int, optional
        Sample rate of an array in Hz; 16,000 by default.
    on_segment : callable, optional
        Called with each `Segment` as soon as it is complete.
    on_progress : callable, optional
        Called with 0.0 to 1.0. Returning False cancels.
    cancel : Cancel, optional
        Stops the call within a second, as Ctrl-C does.
    **options
        The fields of `TranscribeOptions`: ``language``, ``task``, ``word_timestamps``, ``vad_filter``, ``beam_size``,
        ``initial_prompt``, ``batch_size``, ... The names of openai-whisper, faster-whisper and whisper.cpp are aliases.

    Returns
    -------
    Transcription
        With ``text``, ``segments``, ``words``, ``language``, ``duration``. Empty audio has no segments.

    Raises
    ------
    TypeError
        An option is unknown; the message suggests a similar one.
    UnsupportedError
        whisper.cpp or the Parakeet model does not support an option.
    ValueError
        A value is out of range, or the language is unknown.
    MediaError
        The file is not audio.
    FileNotFoundError, ModelLoadError, TranscribeError, CancelledError

    Warns
    -----
    DamagedAudioWarning
        The file is damaged or truncated; the message says where. The rest of it is transcribed.

    Notes
    -----
    Releases the GIL while computing. An exception in a callback stops the transcription and is raised. Source:
    ``whisper_full_with_state``, whisper.h.
    """
    if not isinstance(model, Whisper):
        options_from(options)  # reject wrong options before loading
    with contextlib.nullcontext(model) if isinstance(model, Whisper) else Whisper(model, cancel=cancel) as whisper:
        return whisper(
            audio, sample_rate=sample_rate, on_segment=on_segment, on_progress=on_progress, cancel=cancel, **options
        )
