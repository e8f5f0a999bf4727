"""The options of a transcription: the only list of them, under the names that openai-whisper and faster-whisper use.

The keyword arguments of `transcribe`, the flags of the command line and the table in the documents come from here.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cyllama.errors import UnsupportedError
from cyllama.media.audio import Clips
from cyllama.whisper.words import APPENDED, PREPENDED

__all__ = ["TranscribeOptions", "VadOptions", "options_from"]

MAX_DECODERS = 8  # WHISPER_MAX_DECODERS
ALL_THAT_IS_NO_SPEECH = -1  # among suppress_tokens, as openai-whisper has it

# Other names of the same thing.
ALIASES = {
    "log_prob_threshold": "logprob_threshold",
    "logprob_thold": "logprob_threshold",
    "no_speech_thold": "no_speech_threshold",
    "entropy_thold": "entropy_threshold",
    "prompt": "initial_prompt",
    "token_timestamps": "word_timestamps",
    "no_timestamps": "without_timestamps",
    "max_len": "max_segment_chars",
    "max_tokens": "max_new_tokens",
    "max_initial_ts": "max_initial_timestamp",
    "cpu_threads": "n_threads",
    "vad": "vad_filter",
    "vad_params": "vad_parameters",
    "tdrz_enable": "speaker_turns",
    "prepend_punctuation": "prepend_punctuations",
    "append_punctuation": "append_punctuations",
}
# What the others offer and this engine does not: said, rather than ignored.
UNSUPPORTED = {
    "compression_ratio_threshold": "whisper.cpp finds loops by the entropy of the tokens: use entropy_threshold",
    "patience": "whisper.cpp's beam search has no patience",
    "prefix": "whisper.cpp cannot begin a window with a text: use initial_prompt",
    "hallucination_silence_threshold": "use vad_filter=True, which leaves silence out",
    "multilingual": "the language is detected once; transcribe parts in other languages on their own",
    "repetition_penalty": "whisper.cpp has no penalty for repetitions: use entropy_threshold",
    "no_repeat_ngram_size": "whisper.cpp has no penalty for repetitions: use entropy_threshold",
    "chunk_length": "windows have 30 s: use audio_ctx to encode less",
    "fp16": "the precision is that of the model file",
}


def _option(default: Any, help_text: str, **metadata: Any) -> Any:
    return field(default=default, metadata={"help": help_text, **metadata})


@dataclass(kw_only=True, frozen=True)
class VadOptions:
    """How speech is told from silence (``whisper_vad_params``, whisper.h); faster-whisper's names."""

    threshold: float | None = _option(None, "probability above which it is speech, 0 to 1")
    min_speech_duration_ms: int | None = _option(None, "speech that is shorter is dropped")
    min_silence_duration_ms: int | None = _option(None, "silence that ends a segment of speech")
    max_speech_duration_s: float | None = _option(None, "longer speech is cut where it is quietest")
    speech_pad_ms: int | None = _option(None, "kept before and after speech")
    model: str | None = _option(None, "name or file of the VAD model; default: silero-vad")


@dataclass(kw_only=True, frozen=True)
class TranscribeOptions:
    """Everything that a transcription can be told; ``None`` is the engine's own default."""

    language: str | None = _option(None, "code or name of the language, such as en; default: detect it")
    task: str = _option("transcribe", "transcribe, or translate into English", choices=("transcribe", "translate"))
    initial_prompt: str | Sequence[int] | None = _option(None, "text (or tokens) that the beginning should go on from")
    hotwords: str | None = _option(None, "words that are likely, added to the prompt")
    carry_initial_prompt: bool = _option(False, "give the prompt to every window, not the first only")
    condition_on_previous_text: bool = _option(
        True, "give each window the text of the one before; without it, the prompt is put before every window"
    )
    max_context: int | None = _option(None, "most tokens of that text")
    temperature: float | Sequence[float] | None = _option(
        None,
        "0 always takes the likeliest token; a list is tried in order where a window fails (default: 0 to 1 by 0.2)",
    )
    best_of: int | None = _option(None, f"samples to choose from at a temperature above 0, 1 to {MAX_DECODERS}")
    beam_size: int | None = _option(None, f"beams of the search, 1 to {MAX_DECODERS}; default: no beam search")
    length_penalty: float | None = _option(None, "exponent of the length in the score of a beam")
    no_speech_threshold: float | None = _option(None, "a window above this probability is silence if it failed too")
    logprob_threshold: float | None = _option(None, "a window with a lower mean log-probability has failed")
    entropy_threshold: float | None = _option(None, "a window with a lower entropy of its last tokens has failed")
    word_timestamps: bool = _option(False, "give each segment its words")
    prepend_punctuations: str = _option(PREPENDED, "punctuation that belongs to the word that follows")
    append_punctuations: str = _option(APPENDED, "punctuation that belongs to the word before")
    without_timestamps: bool = _option(False, "text only: each window is one segment")
    max_initial_timestamp: float | None = _option(None, "latest begin of the first segment in a window, seconds")
    max_new_tokens: int | None = _option(None, "most tokens of a segment")
    max_segment_chars: int | None = _option(None, "most characters of a segment")
    split_on_word: bool = _option(True, "cut such segments between words")
    suppress_blank: bool = _option(True, "no empty text at the beginning")
    suppress_tokens: Sequence[int] | None = _option(None, "tokens that never come; -1: all that are no speech")
    suppress_regex: str | None = _option(None, "tokens that match never come")
    grammar: str | None = _option(None, "GBNF grammar that the text has to follow")
    grammar_rule: str = _option("root", "rule that the grammar begins with")
    grammar_penalty: float | None = _option(None, "taken from the logits of what the grammar does not allow")
    speaker_turns: bool = _option(False, "mark where another speaker begins (models trained for it)")
    audio_ctx: int | None = _option(None, "frames of 20 ms that are encoded; less is faster for short clips")
    vad_filter: bool = _option(False, "leave out what is no speech")
    vad_parameters: VadOptions | Mapping[str, Any] | None = _option(None, "how speech is found", cli=False)
    clip_timestamps: Clips | None = _option(None, "ranges of seconds to transcribe: start,end,start,end,...")
    batch_size: int = _option(1, "parts of speech that are transcribed at the same time")
    n_threads: int | None = _option(None, "threads; default: the thread budget")

    def vad(self) -> VadOptions:
        """Return the options of voice activity detection."""
        given = self.vad_parameters
        if given is None or isinstance(given, VadOptions):
            return given or VadOptions()
        _known(given, VadOptions, "vad_parameters")
        return VadOptions(**given)

    def temperatures(self) -> tuple[float | None, float | None]:
        """Return the first temperature and the step to the next, which the engine goes up to 1.

        Raises
        ------
        TypeError, ValueError
            It is no number; the list has no such step.
        """
        given = self.temperature
        if given is None or isinstance(given, (int, float)):
            return given, None if given is None else 0.0
        values = list(given) if isinstance(given, Iterable) else [given]
        if not all(isinstance(value, numbers.Real) for value in values):
            raise TypeError(f"temperature is {given!r}, expected a number or several")
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
        suppressed = [int(token) for token in self.suppress_tokens or ()]
        return {
            "strategy": "beam_search" if (self.beam_size or 1) > 1 else "greedy",
            "beam_size": self.beam_size if (self.beam_size or 1) > 1 else None,
            "best_of": self.best_of,
            "n_threads": self.n_threads,
            "grammar_rules": self.grammar,
            "i_start_rule": None if self.grammar is None else self.grammar_rule,
            "n_max_text_ctx": self.max_context if self.condition_on_previous_text else 0,
            "translate": self.task == "translate",
            "no_timestamps": self.without_timestamps,
            "token_timestamps": self.word_timestamps or self.max_segment_chars is not None,
            "max_len": self.max_segment_chars,
            "split_on_word": self.split_on_word if self.max_segment_chars else None,
            "max_tokens": self.max_new_tokens,
            "audio_ctx": self.audio_ctx,
            "tdrz_enable": self.speaker_turns,
            "suppress_regex": self.suppress_regex,
            "carry_initial_prompt": self.carry_initial_prompt,
            "suppress_blank": self.suppress_blank,
            "suppress_nst": ALL_THAT_IS_NO_SPEECH in suppressed,
            "suppress_tokens": [token for token in suppressed if token != ALL_THAT_IS_NO_SPEECH],
            "temperature": first,
            "temperature_inc": step,
            "max_initial_ts": self.max_initial_timestamp,
            "length_penalty": self.length_penalty,
            "entropy_thold": self.entropy_threshold,
            "logprob_thold": self.logprob_threshold,
            "no_speech_thold": self.no_speech_threshold,
            "grammar_penalty": self.grammar_penalty,
        }


def options_from(given: Mapping[str, Any]) -> TranscribeOptions:
    """Return the options out of keyword arguments, under any of their names.

    Raises
    ------
    TypeError
        There is no such option; the nearest is named.
    UnsupportedError
        openai-whisper or faster-whisper has it, whisper.cpp has not.
    ValueError
        A value is out of range.
    """
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name in UNSUPPORTED:
            if value is not None and value is not False:
                raise UnsupportedError(f"{name}={value!r}: {UNSUPPORTED[name]}")
            continue
        values |= _renamed(name, value)
    _known(values, TranscribeOptions, "transcribe()")
    options = TranscribeOptions(**values)
    _check(options)
    return options


def _renamed(name: str, value: Any) -> dict[str, Any]:
    if name == "translate":
        return {"task": "translate" if value else "transcribe"}
    if name == "no_context":
        return {"condition_on_previous_text": not value}
    return {ALIASES.get(name, name): value}


def _known(given: Mapping[str, Any], kind: type, what: str) -> None:
    names = [f.name for f in dataclasses.fields(kind)]
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(str(name), [*names, *(ALIASES if what.endswith(")") else ())], 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"{what} has no option {name!r}{hint}")


def _check(options: TranscribeOptions) -> None:
    """Refuse here what is not a matter of the engine's own parameters, which `WhisperFullParams` checks."""
    if options.task not in ("transcribe", "translate"):
        raise ValueError(f"task is {options.task!r}, expected 'transcribe' or 'translate'")
    if isinstance(options.batch_size, bool) or not isinstance(options.batch_size, int) or options.batch_size < 1:
        raise ValueError(f"batch_size is {options.batch_size!r}, expected a whole number, at least 1")
    if options.beam_size is not None and not 1 <= options.beam_size <= MAX_DECODERS:
        raise ValueError(f"beam_size is {options.beam_size!r}, expected 1 to {MAX_DECODERS}")
    if options.vad_parameters is not None and not options.vad_filter and options.batch_size == 1:
        raise ValueError("vad_parameters are given, but vad_filter is off")
    prompt = options.initial_prompt
    if not (prompt is None or isinstance(prompt, str) or _are_tokens(prompt)):
        raise TypeError(f"initial_prompt is {prompt!r:.200}, expected a text or tokens")
    options.temperatures()
    options.vad()


def _are_tokens(value: Any) -> bool:
    return not isinstance(value, bytes) and hasattr(value, "__len__") and all(hasattr(i, "__index__") for i in value)
