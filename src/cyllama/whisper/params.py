"""Parameters of the engine: one dataclass for each parameter struct of whisper.h and parakeet.h.

Field names are those of the C struct, those of its inner structs included (``best_of``, ``beam_size``). ``None`` is the
engine's own default. Names that end in ``_ms`` are milliseconds.

Left out are fields without effect in the engine (``print_progress``, ``debug_mode``, ``patience``) and those that print
to the terminal (``print_realtime``, ``print_timestamps``); lengths and user data are not needed in Python, and
``abort_callback`` is the call's ``cancel``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cyllama._params import Params, param

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


@dataclass(kw_only=True, repr=False)
class WhisperContextParams(Params, c="whisper_context_params"):
    """Parameters for loading a model (``whisper_context_params``, whisper.h)."""

    use_gpu: bool | None = param("compute on a GPU if there is one")
    flash_attn: bool | None = param("flash attention; default: on")
    gpu_device: int | None = param("number of the GPU", low=0, high=1023)
    dtw_token_timestamps: bool | None = param("align tokens where token_timestamps is set; needs alignment heads")
    dtw_aheads_preset: str | None = param("model that the alignment heads are for", choices=AHEADS_PRESETS, c=None)
    dtw_n_top: int | None = param("use all heads of this many last text layers (preset n_top_most)", low=1, high=48)
    dtw_aheads: Sequence[tuple[int, int]] | None = param("heads as (text layer, head) (preset custom)", c=None)
    dtw_mem_size: int | None = param("memory for dynamic time warping in bytes", low=0, high=2**40)

    def _check_together(self) -> None:
        preset = self.dtw_aheads_preset or "none"
        if self.dtw_token_timestamps:
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


@dataclass(kw_only=True, repr=False)
class WhisperVadContextParams(Params, c="whisper_vad_context_params"):
    """Parameters for loading a VAD model (``whisper_vad_context_params``, whisper.h)."""

    n_threads: int | None = param("threads; default: 1, the network is too small for more", low=1, high=512)
    use_gpu: bool | None = param("keep the weights on a GPU; the engine computes on the CPU")
    gpu_device: int | None = param("number of the GPU", low=0, high=1023)


@dataclass(kw_only=True, repr=False)
class WhisperVadParams(Params, c="whisper_vad_params"):
    """Parameters of voice activity detection (``whisper_vad_params``, whisper.h)."""

    threshold: float | None = param("lowest probability of speech", low=0.0, high=1.0)
    min_speech_duration_ms: int | None = param("drop shorter speech", low=0, high=120_000)
    min_silence_duration_ms: int | None = param("silence that ends a segment", low=0, high=120_000)
    max_speech_duration_s: float | None = param(
        "split longer segments, in whole seconds; infinity: never", low=1.0, high=math.inf, c=None
    )
    speech_pad_ms: int | None = param("padding before and after a segment", low=0, high=120_000)
    samples_overlap: float | None = param("overlap of segments, in seconds", low=0.0, high=60.0)

    def _check_together(self) -> None:
        pad = 30 if self.speech_pad_ms is None else self.speech_pad_ms
        longest = self.max_speech_duration_s
        window = 32  # ms
        if longest is not None and longest <= 100_000 and 1000 * int(longest) <= 2 * pad + window:
            raise ValueError(f"max_speech_duration_s is {longest}, expected more than twice the padding ({pad} ms)")


@dataclass(kw_only=True, repr=False)
class DecodingFields(Params):
    """Parameters of ``whisper_full_params`` that are options of `transcribe` as well."""

    n_threads: int | None = param("threads; default and at most: the thread budget", low=1, high=512, c=None,
                                  aliases=("cpu_threads",))  # fmt: skip
    best_of: int | None = param("candidates at a temperature above 0", low=1, high=MAX_DECODERS, c="greedy.best_of")
    length_penalty: float | None = param("length penalty of beams; negative: none", low=-1.0, high=100.0)
    suppress_regex: str | None = param(
        "suppress tokens that match completely (ECMAScript without back references)", c=None
    )
    grammar_penalty: float | None = param("penalty for tokens that the grammar does not allow", low=0.0, high=1e6)
    audio_ctx: int | None = param("frames of 20 ms to encode, fewer are faster; 0: all of the model", low=0, high=2**30)


@dataclass(kw_only=True, repr=False)
class WhisperFullParams(DecodingFields, c="whisper_full_params"):
    """Parameters of a transcription (``whisper_full_params``, whisper.h)."""

    strategy: str | None = param(
        "sampling; default: beam_search when beam_size is given", choices=("greedy", "beam_search"), c=None
    )
    n_max_text_ctx: int | None = param("most tokens of earlier text used as a prompt", low=0, high=2**30)
    offset_ms: int | None = param("start", low=0, high=MAX_MS)
    duration_ms: int | None = param("length to process; 0: all", low=0, high=MAX_MS)
    translate: bool | None = param("translate to English")
    no_context: bool | None = param("do not use the text of the last call; default: true")
    no_timestamps: bool | None = param("no timestamps")
    single_segment: bool | None = param("one segment for each 30 s")
    print_special: bool | None = param("include special tokens in the text")
    token_timestamps: bool | None = param("compute timestamps of tokens")
    thold_pt: float | None = param("lowest probability of a timestamp token", low=0.0, high=1.0)
    thold_ptsum: float | None = param("lowest probability of all timestamp tokens together", low=0.0, high=1.0)
    max_len: int | None = param("longest segment in characters; 0: no limit", low=0, high=2**30)
    split_on_word: bool | None = param("split between words, not tokens (with max_len)")
    max_tokens: int | None = param("most tokens of a segment; 0: no limit", low=0, high=2**30)
    tdrz_enable: bool | None = param("speaker turns (models made by tinydiarize)")
    suppress_tokens: Sequence[int] | None = param("suppress these tokens", c=None, kind="any")
    initial_prompt: str | None = param("text before the first window", c=None)
    carry_initial_prompt: bool | None = param("use initial_prompt for every window, not only the first")
    prompt_tokens: Sequence[int] | None = param("initial_prompt as tokens", c=None, kind="any")
    language: str | None = param("language, such as en or english; auto: detect it", c=None)
    detect_language: bool | None = param("detect the language and stop")
    suppress_blank: bool | None = param("do not begin a window with a blank")
    suppress_nst: bool | None = param("suppress non-speech tokens")
    temperature: float | None = param("temperature of the first attempt; 0: the most likely token", low=0.0, high=10.0)
    max_initial_ts: float | None = param("latest first timestamp in seconds; 0: no limit", low=0.0, high=30.0)
    temperature_inc: float | None = param(
        "increase of the temperature for the next attempt, up to 1; 0: one attempt", low=0.0, high=1.0
    )
    entropy_thold: float | None = param("the attempt failed if the entropy is lower", low=-1e6, high=1e6)
    logprob_thold: float | None = param("the attempt failed if the mean log probability is lower", low=-1e6, high=1e6)
    no_speech_thold: float | None = param("higher probability of no speech: the window is silent", low=0.0, high=1e6)
    beam_size: int | None = param("beams of beam search", low=1, high=MAX_DECODERS, c="beam_search.beam_size")
    new_segment_callback: Callable[[int, int], Any] | None = param(
        "called with the range of the new segments: first, and one after the last", c=None
    )
    progress_callback: Callable[[float], Any] | None = param("called with 0.0 to 1.0; False cancels", c=None)
    encoder_begin_callback: Callable[[], Any] | None = param(
        "called before each window; False ends the call with the segments until then", c=None
    )
    logits_filter_callback: Callable[[list[int], Any], Any] | None = param(
        "called with the tokens of the window and the logits (float32 array), which it may change", c=None
    )
    grammar_rules: Any = param("a WhisperGrammar, or its text (GBNF)", c=None)
    i_start_rule: str | None = param("name of the grammar's first rule; default: root", c=None)

    def _check_together(self) -> None:
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


@dataclass(kw_only=True, repr=False)
class ParakeetContextParams(Params, c="parakeet_context_params"):
    """Parameters for loading a Parakeet model (``parakeet_context_params``, parakeet.h)."""

    use_gpu: bool | None = param("compute on a GPU if there is one")
    gpu_device: int | None = param("number of the GPU", low=0, high=1023)


@dataclass(kw_only=True, repr=False)
class ParakeetFullParams(Params, c="parakeet_full_params"):
    """Parameters of a transcription by a Parakeet model (``parakeet_full_params``, parakeet.h).

    ``offset_ms`` and ``duration_ms`` are left out: the engine does not read them. ``strategy`` has one value.
    """

    n_threads: int | None = param("threads; default and at most: the thread budget", low=1, high=512, c=None)
    no_context: bool | None = param("do not use the text of the last call; default: true")
    audio_ctx: int | None = param(
        "mel frames of 10 ms to encode; longer audio is truncated; 0: those of the audio", low=0, high=2**30
    )
    new_segment_callback: Callable[[int, int], Any] | None = param(
        "called with the range of the new segments: first, and one after the last", c=None
    )
    new_token_callback: Callable[[Any], Any] | None = param("called with each new ParakeetToken", c=None)
    progress_callback: Callable[[float], Any] | None = param(
        "called with 0.0 when the encoder begins; False cancels", c=None
    )
    encoder_begin_callback: Callable[[], Any] | None = param(
        "called before the encoder; False ends the call without segments", c=None
    )
