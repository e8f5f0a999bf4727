"""Options of a transcription, under the names that openai-whisper and faster-whisper use.

The keyword arguments of `transcribe`, the flags of the command line and the table in the documentation are made from
them. Options that `WhisperFullParams` has under the same name are declared there (`DecodingFields`).
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from cyllama._param_kinds import kind_of
from cyllama._params import CHECKS, aliases_of, check_names, common, names_of, param
from cyllama.errors import UnsupportedError
from cyllama.media.audio import Clips
from cyllama.whisper._word_timestamps import APPENDED, PREPENDED
from cyllama.whisper.params import MAX_DECODERS, DecodingFields, WhisperVadParams

__all__ = ["TranscribeOptions", "VadOptions", "options_from", "plain_language", "reject_unsupported"]

CHECKED_KINDS = ("bool", "int", "float", "choice")
ANY_INT = {"low": None, "high": None}
NON_SPEECH = -1  # among suppress_tokens, as openai-whisper has it

SPECIAL_ALIASES = {"translate": "bool", "no_context": "bool"}
"""Other names whose values are converted, and their types."""

# Options of openai-whisper and faster-whisper that this engine does not have: the values that change nothing, which are
# accepted, and what to do instead of others.
UNSUPPORTED: dict[str, tuple[tuple[Any, ...], str]] = {
    "compression_ratio_threshold": (
        (2.4,), "whisper.cpp detects loops by the entropy of the tokens: use entropy_threshold"),
    "patience": ((1,), "whisper.cpp's beam search has no patience"),
    "prefix": (("",), "whisper.cpp does not support a text at the start of a window: use initial_prompt"),
    "hallucination_silence_threshold": ((), "use vad_filter=True, which skips silence"),
    "multilingual": ((False,), "the language is detected once; transcribe parts in other languages separately"),
    "language_detection_segments": ((1,), "the language is detected in the first window"),
    "language_detection_threshold": ((0.5,), "the language is the most likely one of the first window"),
    "prompt_reset_on_temperature": ((0.5,), "whisper.cpp drops the text of earlier windows above 0.5"),
    "repetition_penalty": ((1,), "whisper.cpp has no penalty for repetitions: use entropy_threshold"),
    "no_repeat_ngram_size": ((0,), "whisper.cpp has no penalty for repetitions: use entropy_threshold"),
    "chunk_length": ((30,), "windows are 30 s long: use audio_ctx to encode less"),
    "fp16": ((False,), "the precision is that of the model file"),
    "verbose": ((False,), "use on_segment=print"),
    "log_progress": ((False,), "use on_progress=print"),
}  # fmt: skip

# The same of the arguments that load a model.
LOAD_UNSUPPORTED: dict[str, tuple[tuple[Any, ...], str]] = {
    "device": (("auto",), "use use_gpu=False for the CPU, use_gpu=True for a GPU, or cyllama.compat.faster_whisper"),
    "device_index": ((0,), "use gpu_device"),
    "compute_type": (("default", "auto"), "the weights have the type of the model file: cyllama whisper quantize"),
    "cpu_threads": ((0,), "use n_threads for each call, or cyllama.set_threads()"),
    "num_workers": ((1,), "several threads may call one Whisper at once"),
    "download_root": ((), "the folder is that of cyllama.models.cache_folder()"),
    "local_files_only": ((False,), "cyllama.models.cached() returns a model without downloading it"),
    "in_memory": ((False,), "pass the content of the file as bytes"),
}

# Codes of languages that Whisper has under another code.
LANGUAGE_CODES = {"nb": "no", "jv": "jw", "iw": "he", "in": "id", "fil": "tl", "cmn": "zh"}


@dataclass(kw_only=True, repr=False)
class VadOptions(WhisperVadParams):
    """Options of voice activity detection (``whisper_vad_params``, whisper.h), under faster-whisper's names."""

    model: str | None = param("name or file of the VAD model; default: silero-vad", c=None)
    # with whisper.cpp's 30 ms the model skips utterances: it has learned speech with pauses
    speech_pad_ms: int | None = param("padding before and after a segment; default: 400", 400, low=0, high=120_000)


@dataclass(kw_only=True, repr=False)
class TranscribeOptions(DecodingFields):
    """Options of a transcription; ``None`` is the engine's own default."""

    language: str | None = param("code or name of the language, such as en or en-US; auto or default: detect it")
    task: str = param("transcribe, or translate into English", "transcribe", choices=("transcribe", "translate"))
    initial_prompt: str | Sequence[int] | None = param("text (or tokens) before the first window", kind="text",
                                                       aliases=("prompt",))  # fmt: skip
    hotwords: str | None = param("likely words, added to the prompt")
    carry_initial_prompt: bool = param("use the prompt for every window, not only the first", False)
    condition_on_previous_text: bool = param(
        "use the text of the previous window as a prompt; without it, every window has the initial prompt", True
    )
    max_context: int | None = param("most tokens of that text")
    temperature: float | Sequence[float] | None = param(
        "0: always the most likely token; a list is tried in order if a window fails (default: 0 to 1 by 0.2)",
        kind="floats",
    )
    beam_size: int | None = param(f"beams of the search, 1 to {MAX_DECODERS}; default: no beam search")
    no_speech_threshold: float | None = param(
        "a failed window with a higher probability of no speech is silent", aliases=("no_speech_thold",)
    )
    logprob_threshold: float | None = param("a window with a lower mean log probability failed",
                                            aliases=("log_prob_threshold", "logprob_thold"))  # fmt: skip
    entropy_threshold: float | None = param(
        "a window with a lower entropy of its last tokens failed", aliases=("entropy_thold",)
    )
    word_timestamps: bool = param("add words with timestamps to each segment", False, aliases=("token_timestamps",))
    prepend_punctuations: str = param("punctuation that belongs to the next word", PREPENDED,
                                      aliases=("prepend_punctuation",))  # fmt: skip
    append_punctuations: str = param("punctuation that belongs to the previous word", APPENDED,
                                     aliases=("append_punctuation",))  # fmt: skip
    without_timestamps: bool = param("text only: each window is one segment", False, aliases=("no_timestamps",))
    max_initial_timestamp: float | None = param(
        "latest start of the first segment of a window in seconds", aliases=("max_initial_ts",)
    )
    max_new_tokens: int | None = param("most tokens of a segment", aliases=("max_tokens",))
    max_segment_chars: int | None = param("most characters of a segment", aliases=("max_len",))
    split_on_word: bool = param("split such segments between words", True)
    suppress_blank: bool = param("do not begin with a blank", True)
    suppress_tokens: str | Sequence[int] | None = param("tokens to suppress; -1: all non-speech tokens", kind="ints")
    grammar: str | None = param("GBNF grammar of the text")
    grammar_rule: str = param("first rule of the grammar", "root")
    speaker_turns: bool = param("mark changes of the speaker (models trained for it)", False, aliases=("tdrz_enable",))
    vad_filter: bool = param("skip audio without speech", False, aliases=("vad",))
    vad_parameters: VadOptions | Mapping[str, Any] | None = param(
        "options of voice activity detection", flag=False, aliases=("vad_params",)
    )
    clip_timestamps: Clips | None = param("ranges to transcribe in seconds: start,end,start,end,...", kind="text")
    batch_size: int = param("number of chunks of speech to transcribe at once", 1)

    def vad(self) -> VadOptions:
        """Return the options of voice activity detection."""
        given = self.vad_parameters
        if given is None or isinstance(given, VadOptions):
            return given or VadOptions()
        check_names(given, names_of(VadOptions), "vad_parameters")
        return VadOptions(**given)

    def temperatures(self) -> tuple[float | None, float | None]:
        """Return the first temperature and the step to the next, which the engine goes up to 1.

        Raises
        ------
        TypeError, ValueError
            It is not a number, or the list has no such step.
        """
        given = self.temperature
        if given is None or isinstance(given, (int, float)):
            return given, None if given is None else 0.0
        values = list(given) if isinstance(given, Iterable) else [given]
        if not all(isinstance(value, numbers.Real) for value in values):
            raise TypeError(f"temperature is {given!r}, expected a number or a list of numbers")
        values = [float(value) for value in values]
        if not values:
            raise ValueError("temperature is an empty list, expected numbers such as (0.0, 0.2, 0.4)")
        if len(values) == 1:
            return values[0], 0.0
        step = (values[-1] - values[0]) / (len(values) - 1)
        even = all(math.isclose(value, values[0] + i * step, abs_tol=1e-6) for i, value in enumerate(values))
        if not even or step <= 0 or values[-1] + step < 1 + 1e-6:
            raise ValueError(
                f"temperature is {given!r}; the engine goes up in even steps as far as 1, such as "
                "(0.0, 0.2, 0.4, 0.6, 0.8, 1.0)"
            )
        return values[0], step

    def engine_fields(self) -> dict[str, Any]:
        """Return the fields of ``WhisperFullParams`` that follow from these."""
        first, step = self.temperatures()
        suppressed = _tokens(self.suppress_tokens)
        return common(self, DecodingFields) | {
            "strategy": "beam_search" if (self.beam_size or 1) > 1 else "greedy",
            "beam_size": self.beam_size if (self.beam_size or 1) > 1 else None,
            "grammar_rules": self.grammar,
            "i_start_rule": None if self.grammar is None else self.grammar_rule,
            "n_max_text_ctx": self.max_context if self.condition_on_previous_text else 0,
            "translate": self.task == "translate",
            "no_timestamps": self.without_timestamps,
            "token_timestamps": self.word_timestamps or self.max_segment_chars is not None,
            "max_len": self.max_segment_chars,
            "split_on_word": self.split_on_word if self.max_segment_chars else None,
            "max_tokens": self.max_new_tokens,
            "tdrz_enable": self.speaker_turns,
            "carry_initial_prompt": self.carry_initial_prompt,
            "suppress_blank": self.suppress_blank,
            "suppress_nst": NON_SPEECH in suppressed,
            "suppress_tokens": [token for token in suppressed if token != NON_SPEECH],
            "temperature": first,
            "temperature_inc": step,
            "max_initial_ts": self.max_initial_timestamp,
            "entropy_thold": self.entropy_threshold,
            "logprob_thold": self.logprob_threshold,
            "no_speech_thold": self.no_speech_threshold,
        }


def options_from(given: Mapping[str, Any]) -> TranscribeOptions:
    """Return the options from keyword arguments, under any of their names.

    Raises
    ------
    TypeError
        An option is unknown; the nearest is named.
    UnsupportedError
        whisper.cpp does not support an option of openai-whisper or faster-whisper.
    ValueError
        A value is out of range.
    """
    aliases = aliases_of(TranscribeOptions)
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name in UNSUPPORTED or (name in LOAD_UNSUPPORTED and name not in aliases):
            reject_unsupported({name: value})
        elif name == "translate":
            values["task"] = "translate" if _switch(name, value) else "transcribe"
        elif name == "no_context":
            values["condition_on_previous_text"] = not _switch(name, value)
        elif name == "cpu_threads":
            values["n_threads"] = value or None  # faster-whisper's default is 0
        else:
            values[aliases.get(name, name)] = value
    check_names(values, names_of(TranscribeOptions), "transcribe()", others=aliases)
    for field in fields(TranscribeOptions):  # None is the default, as in faster-whisper
        if values.get(field.name, field.default) is None:
            values[field.name] = field.default
    options = TranscribeOptions(**values)
    options.language = plain_language(options.language)
    _check(options)
    return options


def reject_unsupported(given: Mapping[str, Any], *, loading: bool = False) -> dict[str, Any]:
    """Return the options without those that the engine does not have.

    Parameters
    ----------
    given : mapping
    loading : bool
        Whether they are arguments that load a model.

    Raises
    ------
    UnsupportedError
        One of them has a value other than its default in openai-whisper or faster-whisper.
    """
    table = LOAD_UNSUPPORTED if loading else UNSUPPORTED | LOAD_UNSUPPORTED
    for name, value in given.items():
        if name in table and value is not None:
            neutral, reason = table[name]
            if not any(value == plain and isinstance(value, bool) == isinstance(plain, bool) for plain in neutral):
                raise UnsupportedError(f"{name}={value!r}: {reason}")
    return {name: value for name, value in given.items() if name not in table}


def plain_language(language: str | None) -> str | None:
    """Return a language without its region: ``"en-US"`` and ``"zh_CN"`` become ``"en"`` and ``"zh"``; auto: None."""
    if not isinstance(language, str):
        return language
    base = language.strip().replace("_", "-").split("-")[0].casefold()
    return None if base in ("auto", "") else LANGUAGE_CODES.get(base, base)


def _check(options: TranscribeOptions) -> None:
    """Check what `WhisperFullParams` does not check."""
    for field in fields(options):
        kind = kind_of(str(field.type), field.metadata)
        value = getattr(options, field.name)
        if kind in CHECKED_KINDS and value is not None:
            CHECKS[kind](value, field.name, field.metadata)
    _tokens(options.suppress_tokens)
    if options.task not in ("transcribe", "translate"):
        raise ValueError(f"task is {options.task!r}, expected 'transcribe' or 'translate'")
    if options.batch_size < 1:
        raise ValueError(f"batch_size is {options.batch_size!r}, expected a whole number, at least 1")
    if options.beam_size is not None and not 1 <= options.beam_size <= MAX_DECODERS:
        raise ValueError(f"beam_size is {options.beam_size!r}, expected 1 to {MAX_DECODERS}")
    if options.vad_parameters is not None and not options.vad_filter and options.batch_size == 1:
        raise ValueError("vad_parameters is given, but vad_filter is False")
    prompt = options.initial_prompt
    if not (prompt is None or isinstance(prompt, str) or _are_tokens(prompt)):
        raise TypeError(f"initial_prompt is {prompt!r:.200}, expected a string or tokens")
    options.temperatures()
    options.vad()


def _switch(name: str, value: Any) -> bool:
    return bool(CHECKS["bool"](value, name, {}))


def _tokens(value: str | Sequence[int] | None) -> list[int]:
    """Return `suppress_tokens` as numbers; openai-whisper has them as a text as well."""
    if isinstance(value, str):
        try:
            return [int(part) for part in value.split(",") if part.strip()]
        except ValueError:
            raise ValueError(f"suppress_tokens is {value!r}, expected numbers separated by commas") from None
    return [int(token) for token in CHECKS["ints"](() if value is None else value, "suppress_tokens", ANY_INT)]


def _are_tokens(value: Any) -> bool:
    return not isinstance(value, bytes) and hasattr(value, "__len__") and all(hasattr(i, "__index__") for i in value)
