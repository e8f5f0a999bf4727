"""Parameters: one keyword-only dataclass for each parameter struct of whisper.h and parakeet.h.

Field names are those of the C struct, those of its inner structs included (``best_of``, ``beam_size``). ``None`` is the
engine's own default. Times that end in ``_ms`` are milliseconds.

Left out are fields without effect in the engine (``print_progress``, ``debug_mode``, ``patience``) and those that print
to the terminal (``print_realtime``, ``print_timestamps``); lengths and user data are not needed in Python, and
``abort_callback`` is the call's ``cancel``.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

__all__ = [
    "ParakeetContextParams",
    "ParakeetFullParams",
    "WhisperContextParams",
    "WhisperFullParams",
    "WhisperVadContextParams",
    "WhisperVadParams",
]

MAX_DECODERS = 8  # WHISPER_MAX_DECODERS of whisper.cpp, which is not in its header
MAX_MS = 2**31 - 1
MAX_REGEX = 1000  # characters; the compiler of regular expressions recurses for each group
MAX_REGEX_STATES = 10_000  # counted repetitions are written out


def _hint(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {near[0]!r}?" if near else ""


class _Params:
    """Refuses names that the C struct does not have."""

    def __new__(cls, *args: Any, **values: Any) -> Self:
        names = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
        for name in values:
            if name not in names:
                raise TypeError(f"{cls.__name__} has no parameter {name!r}{_hint(name, names)}")
        return super().__new__(cls)

    def __setattr__(self, name: str, value: Any) -> None:
        names = [f.name for f in dataclasses.fields(self)]  # type: ignore[arg-type]
        if name not in names:
            raise AttributeError(f"{type(self).__name__} has no parameter {name!r}{_hint(name, names)}")
        object.__setattr__(self, name, value)

    def to_dict(self) -> dict[str, Any]:
        """The parameters that were given (not None) as a dict."""
        return {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)  # type: ignore[arg-type]
            if getattr(self, f.name) is not None
        }

    def check(self) -> None:
        """Check the type and the range of every value that was given.

        Raises
        ------
        TypeError, ValueError
            Names the parameter, its value and what was expected.
        """
        for f in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, f.name)
            if value is not None:
                _check(f.name, value, f.metadata["kind"], f.metadata.get("low"), f.metadata.get("high"))


def _param(help_text: str, kind: str, **metadata: Any) -> Any:
    """A parameter of one of the kinds that :func:`_check` knows."""
    return field(default=None, metadata={"help": help_text, "kind": kind, **metadata})


def _check(name: str, value: Any, kind: str, low: Any, high: Any) -> None:
    if kind == "int":
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise TypeError(f"{name} is {value!r}, expected an integer")
    elif kind == "float":
        if isinstance(value, bool) or not hasattr(value, "__float__"):
            raise TypeError(f"{name} is {value!r}, expected a number")
        if math.isnan(value):
            raise ValueError(f"{name} is {value}, expected a number")
    elif kind == "bool":
        if value not in (True, False):
            raise TypeError(f"{name} is {value!r}, expected True or False")
    elif kind == "text":
        if not isinstance(value, str):
            raise TypeError(f"{name} is {value!r}, expected a string")
        if "\0" in value:
            raise ValueError(f"{name} is {value!r}, it cannot contain a null character")
        value.encode()  # UnicodeEncodeError for lone surrogates, a ValueError
    elif kind == "callable":
        if not callable(value):
            raise TypeError(f"{name} is {value!r}, expected a callable")
    elif kind == "choice" and value not in low:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(low)}{_hint(str(value), low)}")
    if kind in ("int", "float") and not low <= value <= high:
        raise ValueError(f"{name} is {value}, expected {low} to {high}")


AHEADS_PRESETS = (
    "none",
    "n_top_most",
    "custom",
    "tiny.en",
    "tiny",
    "base.en",
    "base",
    "small.en",
    "small",
    "medium.en",
    "medium",
    "large.v1",
    "large.v2",
    "large.v3",
    "large.v3.turbo",
)  # in the order of whisper_alignment_heads_preset


@dataclass(kw_only=True)
class WhisperContextParams(_Params):
    """How a model is loaded (``whisper_context_params``, whisper.h)."""

    use_gpu: bool | None = _param("compute on a GPU if there is one", "bool")
    flash_attn: bool | None = _param("flash attention; default: on, but off with dtw_token_timestamps", "bool")
    gpu_device: int | None = _param("number of the GPU", "int", low=0, high=1023)
    dtw_token_timestamps: bool | None = _param("times of tokens by dynamic time warping; needs heads", "bool")
    dtw_aheads_preset: str | None = _param("alignment heads of which model", "choice", low=AHEADS_PRESETS)
    dtw_n_top: int | None = _param("all heads of that many last text layers (preset n_top_most)", "int", low=1, high=48)
    dtw_aheads: Sequence[tuple[int, int]] | None = _param("heads as (text layer, head) (preset custom)", "any")
    dtw_mem_size: int | None = _param("memory for dynamic time warping in bytes", "int", low=0, high=2**40)

    def check(self) -> None:
        """Check every value, and that they go together."""
        super().check()
        preset = self.dtw_aheads_preset or "none"
        if self.dtw_token_timestamps:
            if self.flash_attn:
                raise ValueError("flash_attn and dtw_token_timestamps exclude each other")
            if preset == "none":
                known = ", ".join(AHEADS_PRESETS[1:])
                raise ValueError(f"dtw_token_timestamps needs dtw_aheads_preset: one of {known}")
        elif preset != "none" or self.dtw_n_top is not None or self.dtw_aheads is not None:
            raise ValueError("dtw_aheads_preset, dtw_n_top and dtw_aheads need dtw_token_timestamps=True")
        if (self.dtw_n_top is not None) != (preset == "n_top_most"):
            raise ValueError("dtw_n_top and dtw_aheads_preset='n_top_most' need each other")
        if bool(self.dtw_aheads) != (preset == "custom"):
            raise ValueError("dtw_aheads, at least one head, and dtw_aheads_preset='custom' need each other")
        for pair in self.dtw_aheads or ():
            if len(pair) != 2 or not all(isinstance(x, int) and not isinstance(x, bool) for x in pair):
                raise TypeError(f"dtw_aheads contains {pair!r}, expected (text layer, head)")


@dataclass(kw_only=True)
class WhisperVadContextParams(_Params):
    """How a VAD model is loaded (``whisper_vad_context_params``, whisper.h)."""

    n_threads: int | None = _param("threads; default: 1, the network is too small for more", "int", low=1, high=512)
    use_gpu: bool | None = _param("keep the weights on a GPU; the engine computes on the CPU", "bool")
    gpu_device: int | None = _param("number of the GPU", "int", low=0, high=1023)


@dataclass(kw_only=True)
class WhisperVadParams(_Params):
    """How speech is found (``whisper_vad_params``, whisper.h)."""

    threshold: float | None = _param("probability from which on it is speech", "float", low=0.0, high=1.0)
    min_speech_duration_ms: int | None = _param("shorter speech is dropped", "int", low=0, high=120_000)
    min_silence_duration_ms: int | None = _param("silence that ends a segment", "int", low=0, high=120_000)
    max_speech_duration_s: float | None = _param(
        "longer segments are split, in whole seconds; infinity: never", "float", low=1.0, high=math.inf
    )
    speech_pad_ms: int | None = _param("what is added before and after a segment", "int", low=0, high=120_000)
    samples_overlap: float | None = _param("overlap of segments, in seconds", "float", low=0.0, high=60.0)

    def check(self) -> None:
        """Check every value, and that they go together."""
        super().check()
        pad = 30 if self.speech_pad_ms is None else self.speech_pad_ms
        longest = self.max_speech_duration_s
        window = 32  # ms
        if longest is not None and longest <= 100_000 and 1000 * int(longest) <= 2 * pad + window:
            raise ValueError(f"max_speech_duration_s is {longest}, expected more than twice the padding ({pad} ms)")


@dataclass(kw_only=True)
class WhisperFullParams(_Params):
    """How a recording is transcribed (``whisper_full_params``, whisper.h)."""

    strategy: str | None = _param(
        "sampling; default: beam_search when beam_size is given", "choice", low=("greedy", "beam_search")
    )
    n_threads: int | None = _param("threads; default and at most: the thread budget", "int", low=1, high=512)
    n_max_text_ctx: int | None = _param("most tokens of earlier text as a prompt", "int", low=0, high=2**30)
    offset_ms: int | None = _param("where to start", "int", low=0, high=MAX_MS)
    duration_ms: int | None = _param("how much to process; 0: all", "int", low=0, high=MAX_MS)
    translate: bool | None = _param("translate to English", "bool")
    no_context: bool | None = _param("forget the text of the last call; default: true", "bool")
    no_timestamps: bool | None = _param("no times", "bool")
    single_segment: bool | None = _param("one segment for each 30 s", "bool")
    print_special: bool | None = _param("special tokens are part of the text", "bool")
    token_timestamps: bool | None = _param("times of tokens", "bool")
    thold_pt: float | None = _param("probability from which on a timestamp token counts", "float", low=0.0, high=1.0)
    thold_ptsum: float | None = _param(
        "probability of all timestamp tokens together from which on one counts", "float", low=0.0, high=1.0
    )
    max_len: int | None = _param("longest segment in characters; 0: no limit", "int", low=0, high=2**30)
    split_on_word: bool | None = _param("split between words, not tokens (with max_len)", "bool")
    max_tokens: int | None = _param("most tokens of a segment; 0: no limit", "int", low=0, high=2**30)
    audio_ctx: int | None = _param("frames of the encoder; 0: all of the model", "int", low=0, high=2**30)
    tdrz_enable: bool | None = _param("speaker turns (models made by tinydiarize)", "bool")
    suppress_regex: str | None = _param("tokens that match (ECMAScript, the whole token) are never chosen", "text")
    suppress_tokens: Sequence[int] | None = _param("tokens that are never chosen (not in the C struct)", "any")
    initial_prompt: str | None = _param("text that the decoder starts from", "text")
    carry_initial_prompt: bool | None = _param("put initial_prompt before every window, not the first alone", "bool")
    prompt_tokens: Sequence[int] | None = _param("initial_prompt as tokens", "any")
    language: str | None = _param("language of the speech, such as en or english; auto: find out", "text")
    detect_language: bool | None = _param("find out the language and stop", "bool")
    suppress_blank: bool | None = _param("a window does not begin with a blank", "bool")
    suppress_nst: bool | None = _param("no tokens that are not speech", "bool")
    temperature: float | None = _param("of the first attempt; 0: the best token", "float", low=0.0, high=10.0)
    max_initial_ts: float | None = _param("latest first time in seconds; 0: no limit", "float", low=0.0, high=30.0)
    length_penalty: float | None = _param("length penalty; negative: none", "float", low=-1.0, high=100.0)
    temperature_inc: float | None = _param(
        "how much warmer the next attempt is, up to 1; 0: one attempt", "float", low=0.0, high=1.0
    )
    entropy_thold: float | None = _param("lower entropy: the attempt failed", "float", low=-1e6, high=1e6)
    logprob_thold: float | None = _param("lower mean log probability: the attempt failed", "float", low=-1e6, high=1e6)
    no_speech_thold: float | None = _param("higher probability of no speech: silence", "float", low=0.0, high=1e6)
    best_of: int | None = _param("candidates when sampling with a temperature", "int", low=1, high=MAX_DECODERS)
    beam_size: int | None = _param("beams of beam search", "int", low=1, high=MAX_DECODERS)
    new_segment_callback: Callable[[int, int], Any] | None = _param(
        "called with the range of the new segments: first, and one after the last", "callable"
    )
    progress_callback: Callable[[float], Any] | None = _param("called with 0.0 to 1.0; False cancels", "callable")
    encoder_begin_callback: Callable[[], Any] | None = _param(
        "called before each window; False ends the call with the segments until then", "callable"
    )
    logits_filter_callback: Callable[[list[int], Any], Any] | None = _param(
        "called with the tokens of the window and the logits (float32 array), which it may change", "callable"
    )
    grammar_rules: Any = _param("a WhisperGrammar, or its text (GBNF)", "any")
    i_start_rule: str | None = _param("name of the grammar's first rule; default: root", "text")
    grammar_penalty: float | None = _param("what tokens outside of the grammar lose", "float", low=0.0, high=1e6)

    def check(self) -> None:
        """Check every value, and that they go together."""
        super().check()
        if self.suppress_regex is not None:
            _check_regex(self.suppress_regex)
        for name in ("temperature", "temperature_inc"):
            value = getattr(self, name)
            if value is not None and 0 < value < 0.01:
                raise ValueError(f"{name} is {value}, expected 0 or at least 0.01")
        if self.strategy == "greedy" and self.beam_size is not None:
            raise ValueError("beam_size needs strategy='beam_search'")
        if self.initial_prompt is not None and self.prompt_tokens is not None:
            raise ValueError("initial_prompt and prompt_tokens exclude each other")
        if self.max_len and self.token_timestamps is False:
            raise ValueError("max_len needs token_timestamps")
        if self.split_on_word and not self.max_len:
            raise ValueError("split_on_word needs max_len")
        if self.i_start_rule is not None and not isinstance(self.grammar_rules, str):
            raise ValueError("i_start_rule needs grammar_rules as text")


@dataclass(kw_only=True)
class ParakeetContextParams(_Params):
    """How a Parakeet model is loaded (``parakeet_context_params``, parakeet.h)."""

    use_gpu: bool | None = _param("compute on a GPU if there is one", "bool")
    gpu_device: int | None = _param("number of the GPU", "int", low=0, high=1023)


@dataclass(kw_only=True)
class ParakeetFullParams(_Params):
    """How a Parakeet model transcribes (``parakeet_full_params``, parakeet.h).

    ``offset_ms`` and ``duration_ms`` are left out: the engine does not read them. ``strategy`` has one value.
    """

    n_threads: int | None = _param("threads; default and at most: the thread budget", "int", low=1, high=512)
    no_context: bool | None = _param("forget the text of the last call; default: true", "bool")
    audio_ctx: int | None = _param(
        "mel frames of 10 ms that are encoded; longer audio is truncated; 0: those of the audio",
        "int",
        low=0,
        high=2**30,
    )
    new_segment_callback: Callable[[int, int], Any] | None = _param(
        "called with the range of the new segments: first, and one after the last", "callable"
    )
    new_token_callback: Callable[[Any], Any] | None = _param("called with each new ParakeetToken", "callable")
    progress_callback: Callable[[float], Any] | None = _param(
        "called with 0.0 when the encoder begins; False cancels", "callable"
    )
    encoder_begin_callback: Callable[[], Any] | None = _param(
        "called before the encoder; False ends the call without segments", "callable"
    )


def _check_regex(pattern: str) -> None:
    """Refuse what is too large for the stack of the compiler of regular expressions."""
    if len(pattern) > MAX_REGEX:
        raise ValueError(f"suppress_regex has {len(pattern)} characters, expected {MAX_REGEX} at most")
    states = len(pattern) + 1
    for low, high in re.findall(r"\{(\d+)(?:,(\d*))?", pattern):
        states *= max(1, int((low or "0")[:9]), int((high or "0")[:9]))
    if states > MAX_REGEX_STATES:
        raise ValueError(f"suppress_regex is {pattern!r}: its counted repetitions are too many")
