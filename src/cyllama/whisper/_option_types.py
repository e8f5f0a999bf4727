"""Keyword arguments as TypedDicts; written by scripts/gen_option_types.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from cyllama.media.audio import Clips
from cyllama.whisper.options import VadOptions

__all__ = [
    "LoadOptionsDict",
    "TranscribeOptionsDict",
]


class LoadOptionsDict(TypedDict, total=False):
    """Keyword arguments."""

    use_gpu: bool | None
    gpu_device: int | None
    flash_attn: bool | None


class TranscribeOptionsDict(TypedDict, total=False):
    """Keyword arguments."""

    n_threads: int | None
    best_of: int | None
    length_penalty: float | None
    suppress_regex: str | None
    grammar_penalty: float | None
    audio_ctx: int | None
    language: str | None
    task: str
    initial_prompt: str | Sequence[int] | None
    hotwords: str | None
    carry_initial_prompt: bool
    condition_on_previous_text: bool
    max_context: int | None
    temperature: float | Sequence[float] | None
    beam_size: int | None
    no_speech_threshold: float | None
    logprob_threshold: float | None
    entropy_threshold: float | None
    word_timestamps: bool
    prepend_punctuations: str
    append_punctuations: str
    without_timestamps: bool
    max_initial_timestamp: float | None
    max_new_tokens: int | None
    max_segment_chars: int | None
    split_on_word: bool
    suppress_blank: bool
    suppress_tokens: str | Sequence[int] | None
    grammar: str | None
    grammar_rule: str
    speaker_turns: bool
    vad_filter: bool
    vad_parameters: VadOptions | Mapping[str, Any] | None
    clip_timestamps: Clips | None
    batch_size: int
    cpu_threads: int | None
    prompt: str | Sequence[int] | None
    no_speech_thold: float | None
    log_prob_threshold: float | None
    logprob_thold: float | None
    entropy_thold: float | None
    token_timestamps: bool
    prepend_punctuation: str
    append_punctuation: str
    no_timestamps: bool
    max_initial_ts: float | None
    max_tokens: int | None
    max_len: int | None
    tdrz_enable: bool
    vad: bool
    vad_params: VadOptions | Mapping[str, Any] | None
    translate: bool
    no_context: bool
