"""Parakeet models behind `Whisper`: detection of their files, supported options, and segments from their tokens."""

from __future__ import annotations

import dataclasses
import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cyllama.errors import UnsupportedError
from cyllama.whisper._parakeet import ParakeetContext
from cyllama.whisper._parakeet_state import ParakeetState, ParakeetToken
from cyllama.whisper.options import TranscribeOptions
from cyllama.whisper.params import ParakeetContextParams, ParakeetFullParams, WhisperContextParams
from cyllama.whisper.pieces import Piece
from cyllama.whisper.results import Segment, Token, compression_ratio
from cyllama.whisper.words import words_of

__all__ = ["UNKNOWN_LANGUAGE", "ParakeetDecoder", "check_options", "context_params", "is_parakeet", "max_seconds"]

UNKNOWN_LANGUAGE = "und"  # "undetermined" in ISO 639: the model does not report the language
MAGIC = 0x67676D6C
# Places among the numbers that follow the magic number of a model file.
N_MELS, N_FFT, SUBSAMPLING, FILTER_MELS, FILTER_BINS = 5, 7, 8, 15, 16
N_NUMBERS = 17
CENTISECONDS = 100.0
FRAME_SECONDS, AUDIO_CTX_SECONDS = 0.01, 0.02  # a mel frame; a frame of the option audio_ctx
MIN_AUDIO_CTX = 50  # parts below one second have no context
SENTENCE_ENDS = frozenset(".?!。？！")  # noqa: RUF001

# Options that the decoder or this module applies. All others are rejected unless they have their default.
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
NEUTRAL: dict[str, Any] = {"language": "auto", "temperature": 0, "beam_size": 1, "best_of": 1}  # what it does anyway
NO_PROMPT = "the decoder takes no prompt"
NO_FALLBACK = "the decoder does not reject or repeat a part of the audio"
NO_FILTER = "the decoder does not filter tokens"
GREEDY = "the decoder takes the likeliest token"
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
    "max_initial_timestamp": "the decoder has no limit for times",
    "max_new_tokens": "the decoder has no limit for tokens",
    "suppress_blank": NO_FILTER,
    "suppress_tokens": NO_FILTER,
    "suppress_regex": NO_FILTER,
    "grammar": NO_FILTER,
    "grammar_rule": NO_FILTER,
    "grammar_penalty": NO_FILTER,
    "speaker_turns": "the model does not mark speakers",
    "dtw": "the model has no alignment heads, and its words have times anyway",
    "flash_attn": "the engine computes its attention in one way",
}


def is_parakeet(head: bytes) -> bool:
    """Tell whether a model file begins like a Parakeet model, not like a Whisper model.

    Both have the same magic number. Of three properties of a Parakeet header, two are enough, so that a damaged file is
    still reported as a Parakeet model: the subsampling factor is 8, and the mel filters that follow the header have as
    many bands and bins as the header says. In a Whisper file, these places hold a number of layers and filter weights.
    """
    if len(head) < 4 * (1 + N_NUMBERS) or struct.unpack_from("<I", head)[0] != MAGIC:
        return False
    numbers: tuple[int, ...] = struct.unpack_from(f"<{N_NUMBERS}i", head, 4)
    marks = (
        numbers[SUBSAMPLING] == 8,
        numbers[FILTER_MELS] == numbers[N_MELS],
        numbers[FILTER_BINS] == 1 + numbers[N_FFT] // 2,
    )
    return sum(marks) >= 2


def context_params(dtw: bool | str, params: Mapping[str, Any]) -> ParakeetContextParams:
    """Return how a Parakeet model is loaded.

    Raises
    ------
    UnsupportedError
        `dtw`, or a parameter of Whisper models alone.
    TypeError
        There is no such parameter.
    """
    if dtw:
        raise _unsupported("dtw", dtw)
    own = {field.name for field in dataclasses.fields(ParakeetContextParams)}
    others = {field.name for field in dataclasses.fields(WhisperContextParams)} - own
    for name in others & params.keys():
        if params[name] is not None:
            raise _unsupported(name, params[name])
    return ParakeetContextParams(**{name: value for name, value in params.items() if name not in others})


def check_options(options: TranscribeOptions, n_audio_ctx: int) -> None:
    """Reject options that a Parakeet model cannot apply.

    Parameters
    ----------
    options : TranscribeOptions
    n_audio_ctx : int
        Mel frames that the model takes at once.

    Raises
    ------
    UnsupportedError
        An option has another value than its default and is not supported.
    TypeError, ValueError
        A value is wrong.
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
    _full_params(options).check()


def max_seconds(options: TranscribeOptions, n_audio_ctx: int) -> float:
    """Return the longest audio of one call of the engine."""
    seconds = (n_audio_ctx - 1) * FRAME_SECONDS
    return min(seconds, options.audio_ctx * AUDIO_CTX_SECONDS) if options.audio_ctx else seconds


def _full_params(options: TranscribeOptions) -> ParakeetFullParams:
    return ParakeetFullParams(n_threads=options.n_threads)


def _check_count(name: str, value: Any, low: int, high: int) -> None:
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
    """How a piece of audio becomes segments.

    Attributes
    ----------
    context : ParakeetContext
    options : TranscribeOptions
        Checked by :func:`check_options`.
    n_threads : int or None
        Threads of each call.
    """

    context: ParakeetContext
    options: TranscribeOptions
    n_threads: int | None = None

    def state(self) -> ParakeetState:
        """Return a new state of the model."""
        return ParakeetState(self.context)

    def following(self) -> dict[str, Any]:
        """Return the parameters of the second piece and of those after it."""
        return {"no_context": not self.options.condition_on_previous_text}

    def run(
        self,
        state: ParakeetState,
        piece: Piece,
        *,
        emit: Callable[[Segment], None],
        progress: Callable[[float], object] | None = None,
        cancel: Any = None,
        **changes: Any,
    ) -> None:
        """Transcribe one piece; pass each segment to `emit`."""

        def new_segments(first: int, last: int) -> None:
            for i in range(first, last):
                for segment in self.segments(state.get_tokens(i), piece):
                    emit(segment)

        params = ParakeetFullParams(
            n_threads=self.n_threads, new_segment_callback=new_segments, progress_callback=progress
        )
        state.full(piece.samples, replace(params, **changes), cancel=cancel)

    def segments(self, tokens: Sequence[ParakeetToken], piece: Piece) -> Iterator[Segment]:
        """Yield segments: sentences, or parts of them if they have more than ``max_segment_chars`` characters."""
        found = [_token(token, piece) for token in tokens if token.text]  # control tokens have no text
        groups = ([found] if found else []) if self.options.without_timestamps else list(_sentences(found))
        if self.options.max_segment_chars:
            limit, on_word = self.options.max_segment_chars, self.options.split_on_word
            groups = [part for group in groups for part in _limited(group, limit, on_word)]
        for group in groups:
            yield self._segment(group, piece)

    def _segment(self, tokens: Sequence[Token], piece: Piece) -> Segment:
        start, end = tokens[0].start or 0.0, tokens[-1].end or 0.0
        if self.options.without_timestamps:
            start, end = piece.start, piece.end
        end = max(start, end)
        text = _text(tokens)
        words = None
        if self.options.word_timestamps:
            words = words_of(
                tokens,
                UNKNOWN_LANGUAGE,
                start,
                end,
                prepended=self.options.prepend_punctuations,
                appended=self.options.append_punctuations,
            )
        return Segment(
            id=0,
            seek=round(piece.start * CENTISECONDS),
            start=start,
            end=end,
            text=text,
            tokens=tuple(tokens),
            words=words,
            avg_logprob=sum(token.logprob for token in tokens) / len(tokens),
            compression_ratio=compression_ratio(text),
        )


def _token(data: ParakeetToken, piece: Piece) -> Token:
    """Return a token with times in the whole audio."""
    start = piece.start_time(data.t0 / CENTISECONDS)
    return Token(
        id=data.id,
        raw=data.text,
        probability=data.p,
        logprob=math.log(data.p) if data.p > 0 else -math.inf,
        start=start,
        end=max(start, piece.end_time(data.t1 / CENTISECONDS)),
    )


def _text(tokens: Sequence[Token]) -> str:
    return b"".join(token.raw for token in tokens).decode("utf-8", "replace")


def _sentences(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    """Cut behind punctuation that ends a sentence and is followed by a space."""
    group: list[Token] = []
    for token in tokens:
        if group and token.raw.startswith(b" ") and _text(group)[-1:] in SENTENCE_ENDS:
            yield group
            group = []
        group.append(token)
    if group:
        yield group


def _limited(tokens: Sequence[Token], limit: int, on_word: bool) -> Iterator[list[Token]]:
    """Cut between words, or between tokens, before the text has more than `limit` characters."""
    group: list[Token] = []
    for unit in _words(tokens) if on_word else [[token] for token in tokens]:
        if group and len(_text([*group, *unit]).strip()) > limit:
            yield group
            group = []
        group += unit
    if group:
        yield group


def _words(tokens: Sequence[Token]) -> list[list[Token]]:
    """Group tokens so that each group but the first begins with a space."""
    groups: list[list[Token]] = []
    for token in tokens:
        if groups and not token.raw.startswith(b" "):
            groups[-1].append(token)
        else:
            groups.append([token])
    return groups
