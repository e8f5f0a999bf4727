"""Parakeet models in `Whisper`: file detection, supported options, and segments of tokens."""

from __future__ import annotations

import dataclasses
import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from cyllama._cancel import Cancel
from cyllama._native import _core
from cyllama.errors import UnsupportedError
from cyllama.whisper._chunking import Chunk
from cyllama.whisper._decoding import OnProgress, OnSegment
from cyllama.whisper._model_source import MAGIC
from cyllama.whisper._parakeet import ParakeetContext
from cyllama.whisper._parakeet_state import ParakeetState, ParakeetToken
from cyllama.whisper._segment_builder import CENTISECONDS, make_segment
from cyllama.whisper._segments import Segment, Token, Word
from cyllama.whisper._word_timestamps import join_text, join_words
from cyllama.whisper.options import TranscribeOptions
from cyllama.whisper.params import ParakeetContextParams, ParakeetFullParams, WhisperContextParams

__all__ = [
    "UNKNOWN_LANGUAGE",
    "ParakeetDecoder",
    "check_parakeet_options",
    "is_parakeet",
    "max_chunk_seconds",
    "parakeet_context_params",
]

UNKNOWN_LANGUAGE = "und"  # "undetermined" in ISO 639: the model does not report the language
# Indices of the numbers after the magic number of a model file.
N_MELS, N_FFT, SUBSAMPLING, FILTER_MELS, FILTER_BINS = 5, 7, 8, 15, 16
N_NUMBERS = 17
FRAME_SECONDS, AUDIO_CTX_SECONDS = 0.01, 0.02  # a mel frame; a frame of the option audio_ctx
MIN_AUDIO_CTX = 50  # chunks below one second have no context
SENTENCE_ENDS = frozenset(".?!。？！")  # noqa: RUF001

# Options that the decoder or this module applies. Others are rejected unless they have their default value.
SUPPORTED = frozenset(
    {
        "append_punctuations",
        "audio_ctx",
        "batch_size",
        "clip_timestamps",
        "condition_on_previous_text",
        "max_segment_chars",
        "n_threads",
        "prepend_punctuations",
        "split_on_word",
        "vad_filter",
        "vad_parameters",
        "without_timestamps",
        "word_timestamps",
    }
)
# Values that describe what the decoder does, and are therefore accepted.
NEUTRAL: dict[str, Any] = {"language": "auto", "temperature": 0, "beam_size": 1, "best_of": 1}
NO_PROMPT = "the decoder has no prompt"
NO_FALLBACK = "the decoder does not reject or repeat audio"
NO_FILTER = "the decoder does not filter tokens"
GREEDY = "the decoder takes the most likely token"
REASONS = {
    "language": "the model recognizes the language without reporting it",
    "task": "the model does not translate",
    "initial_prompt": NO_PROMPT,
    "hotwords": NO_PROMPT,
    "carry_initial_prompt": NO_PROMPT,
    "max_context": "the context of the decoder has no length",
    "temperature": GREEDY,
    "best_of": GREEDY,
    "beam_size": GREEDY,
    "length_penalty": GREEDY,
    "no_speech_threshold": NO_FALLBACK,
    "logprob_threshold": NO_FALLBACK,
    "entropy_threshold": NO_FALLBACK,
    "max_initial_timestamp": "the decoder does not limit times",
    "max_new_tokens": "the decoder does not limit tokens",
    "suppress_blank": NO_FILTER,
    "suppress_tokens": NO_FILTER,
    "suppress_regex": NO_FILTER,
    "grammar": NO_FILTER,
    "grammar_rule": NO_FILTER,
    "grammar_penalty": NO_FILTER,
    "speaker_turns": "the model does not mark speakers",
    "dtw": "the model has no alignment heads; its words have times without them",
    "flash_attn": "the engine has one implementation of attention",
}


def is_parakeet(head: bytes) -> bool:
    """Return whether a model file is a Parakeet model, by its first bytes.

    Whisper and Parakeet models have the same magic number. A Parakeet header has three properties: the subsampling
    factor is 8, and the numbers of mel bands and of FFT bins are equal to those of the mel filters after the header.
    Two of them are enough, so that a damaged file is still reported as a Parakeet model.
    """
    if len(head) < 4 * (1 + N_NUMBERS) or struct.unpack_from("<I", head)[0] != MAGIC:
        return False
    numbers: tuple[int, ...] = struct.unpack_from(f"<{N_NUMBERS}i", head, 4)
    properties = (
        numbers[SUBSAMPLING] == 8,
        numbers[FILTER_MELS] == numbers[N_MELS],
        numbers[FILTER_BINS] == 1 + numbers[N_FFT] // 2,
    )
    return sum(properties) >= 2


def parakeet_context_params(dtw: bool | str | None, params: Mapping[str, Any]) -> ParakeetContextParams:
    """Return the parameters for loading a Parakeet model.

    Raises
    ------
    UnsupportedError
        `dtw` is set, or a parameter that only Whisper models have.
    TypeError
        A parameter is unknown.
    """
    if dtw:
        raise _unsupported("dtw", dtw)
    own = {field.name for field in dataclasses.fields(ParakeetContextParams)}
    others = {field.name for field in dataclasses.fields(WhisperContextParams)} - own
    for name in others & params.keys():
        if params[name] is not None:
            raise _unsupported(name, params[name])
    return ParakeetContextParams(**{name: value for name, value in params.items() if name not in others})


def check_parakeet_options(options: TranscribeOptions, n_audio_ctx: int) -> None:
    """Reject options that a Parakeet model cannot apply.

    Parameters
    ----------
    options : TranscribeOptions
    n_audio_ctx : int
        Maximum number of mel frames for one call.

    Raises
    ------
    UnsupportedError
        An unsupported option has another value than its default.
    TypeError, ValueError
        A value is invalid.
    """
    for field in dataclasses.fields(TranscribeOptions):
        value = getattr(options, field.name)
        if field.name in SUPPORTED or value is None or (field.default is not None and value == field.default):
            continue
        if isinstance(value, (str, int, float)) and field.name in NEUTRAL and value == NEUTRAL[field.name]:
            continue
        raise _unsupported(field.name, value)
    most = int(n_audio_ctx * FRAME_SECONDS / AUDIO_CTX_SECONDS)
    _check_count("audio_ctx", options.audio_ctx, MIN_AUDIO_CTX, most)
    _check_count("max_segment_chars", options.max_segment_chars, 1, 2**30)
    ParakeetFullParams(n_threads=options.n_threads).check()


def max_chunk_seconds(options: TranscribeOptions, n_audio_ctx: int) -> float:
    """Return the maximum duration of a chunk of audio."""
    seconds = (n_audio_ctx - 1) * FRAME_SECONDS
    return min(seconds, options.audio_ctx * AUDIO_CTX_SECONDS) if options.audio_ctx else seconds


def _check_count(name: str, value: object, low: int, high: int) -> None:
    if value is None or (value == 0 and not isinstance(value, bool)):
        return  # no limit
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is {value!r}, expected an integer")
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}, expected {low} to {high}")


def _unsupported(name: str, value: object) -> UnsupportedError:
    reason = REASONS.get(name, "the option is for Whisper models")
    return UnsupportedError(f"{name} is {value!r:.100}, which Parakeet models do not support: {reason}")


@dataclass(frozen=True)
class ParakeetDecoder:
    """Decodes chunks with a Parakeet model.

    Attributes
    ----------
    context : ParakeetContext
    options : TranscribeOptions
        Checked by :func:`check_parakeet_options`.
    """

    context: ParakeetContext
    options: TranscribeOptions

    @property
    def n_threads(self) -> int | None:
        """Threads of each call; the calls of a batch share the thread budget."""
        if self.options.batch_size > 1 and self.options.n_threads is None:
            return max(1, int(_core.get_threads()) // self.options.batch_size)
        return self.options.n_threads

    def new_state(self) -> ParakeetState:
        """Return a new state of the model."""
        return ParakeetState(self.context)

    def new_batch(self, size: int) -> AbstractContextManager[Callable[[], AbstractContextManager[ParakeetState]]]:
        """Return a function that makes states for a batch; each decodes alone."""
        return nullcontext(self.new_state)

    def next_params(self) -> dict[str, Any]:
        """Return the changed parameters for the second chunk and later ones."""
        return {"no_context": not self.options.condition_on_previous_text}

    def decode(
        self,
        state: ParakeetState,
        chunk: Chunk,
        *,
        on_segment: OnSegment,
        on_progress: OnProgress | None = None,
        cancel: Cancel | None = None,
        **changes: Any,
    ) -> None:
        """Transcribe a chunk; call `on_segment` with each segment."""

        def new_segments(first: int, last: int) -> None:
            for i in range(first, last):
                for segment in self.segments(state.get_tokens(i), chunk):
                    on_segment(segment)

        params = ParakeetFullParams(
            n_threads=self.n_threads, new_segment_callback=new_segments, progress_callback=on_progress
        )
        state.full(chunk.samples, replace(params, **changes), cancel=cancel)

    def segments(self, tokens: Sequence[ParakeetToken], chunk: Chunk) -> Iterator[Segment]:
        """Yield segments: sentences, or shorter ones with at most ``max_segment_chars`` characters."""
        found = [_make_token(token, chunk) for token in tokens if token.text]  # control tokens have no text
        groups = ([found] if found else []) if self.options.without_timestamps else list(_split_sentences(found))
        if self.options.max_segment_chars:
            limit, on_word = self.options.max_segment_chars, self.options.split_on_word
            groups = [part for group in groups for part in _limit_chars(group, limit, on_word)]
        for group in groups:
            start, end = group[0].start or 0.0, group[-1].end or 0.0
            if self.options.without_timestamps:
                start, end = chunk.start, chunk.end
            end = max(start, end)
            yield make_segment(group, chunk, start, end, self._words(group, start, end))

    def _words(self, tokens: Sequence[Token], start: float, end: float) -> tuple[Word, ...] | None:
        """Return the words of a segment, with ``word_timestamps``."""
        options = self.options
        if not options.word_timestamps:
            return None
        prepended, appended = options.prepend_punctuations, options.append_punctuations
        return join_words(tokens, UNKNOWN_LANGUAGE, start, end, prepended=prepended, appended=appended)


def _make_token(data: ParakeetToken, chunk: Chunk) -> Token:
    """Return a token with times in the audio."""
    start = chunk.start_time(data.t0 / CENTISECONDS)
    return Token(
        id=data.id,
        raw=data.text,
        probability=data.p,
        logprob=math.log(data.p) if data.p > 0 else -math.inf,
        start=start,
        end=max(start, chunk.end_time(data.t1 / CENTISECONDS)),
    )


def _split_sentences(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    """Split after punctuation that ends a sentence, if a space follows."""
    group: list[Token] = []
    for token in tokens:
        if group and token.raw.startswith(b" ") and join_text(group)[-1:] in SENTENCE_ENDS:
            yield group
            group = []
        group.append(token)
    if group:
        yield group


def _limit_chars(tokens: Sequence[Token], limit: int, on_word: bool) -> Iterator[list[Token]]:
    """Split between words, or between tokens, so that no group has more than `limit` characters."""
    group: list[Token] = []
    for unit in _group_words(tokens) if on_word else [[token] for token in tokens]:
        if group and len(join_text([*group, *unit]).strip()) > limit:
            yield group
            group = []
        group += unit
    if group:
        yield group


def _group_words(tokens: Sequence[Token]) -> list[list[Token]]:
    """Group tokens so that each group but the first begins with a space."""
    groups: list[list[Token]] = []
    for token in tokens:
        if groups and not token.raw.startswith(b" "):
            groups[-1].append(token)
        else:
            groups.append([token])
    return groups
