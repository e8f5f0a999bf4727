"""What a transcription is made of: immutable records with the names that faster-whisper and openai-whisper use.

All times are seconds from the beginning of the sound. Every field can be read as an attribute and as an item
(``segment.text``, ``segment["text"]``).
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

__all__ = ["Segment", "Token", "Transcription", "TranscriptionInfo", "Word", "compression_ratio"]


class _Record:
    """Fields as items."""

    def __getitem__(self, name: str) -> Any:
        if not isinstance(name, str) or name.startswith("_") or not hasattr(self, name):
            raise KeyError(name)
        return getattr(self, name)


@dataclass(frozen=True)
class Word(_Record):
    """One word.

    Attributes
    ----------
    start, end : float
        In seconds.
    word : str
        As it stands in the text, with the space before it.
    probability : float
        Mean probability of its tokens, 0 to 1.
    """

    start: float
    end: float
    word: str
    probability: float


@dataclass(frozen=True)
class Token(_Record):
    """One token of the text.

    Attributes
    ----------
    id : int
        Its number in the vocabulary.
    raw : bytes
        Its part of the text in UTF-8; a character may be split between tokens.
    probability, logprob : float
        How likely it was, 0 to 1, and the natural logarithm of that.
    start, end : float or None
        In seconds, if token timestamps were asked for.
    dtw : float or None
        The time in seconds that alignment by dynamic time warping found, if it was asked for.
    """

    id: int
    raw: bytes
    probability: float
    logprob: float
    start: float | None = None
    end: float | None = None
    dtw: float | None = None

    @property
    def text(self) -> str:
        """Its part of the text; a part of a character is shown as U+FFFD."""
        return self.raw.decode("utf-8", "replace")


@dataclass(frozen=True)
class Segment(_Record):
    """A part of the text, usually a sentence.

    Attributes
    ----------
    id : int
        Its number, from 0.
    seek : int
        Where its window begins, in frames of 10 ms.
    start, end : float
        In seconds.
    text : str
        With the space before it; the joined words.
    tokens : tuple of Token
        Without timestamps and other special tokens.
    avg_logprob : float
        Mean log-probability of its tokens.
    compression_ratio : float
        Length of the text divided by its compressed length; above 2.4 it is probably a loop.
    no_speech_prob : float
        How likely it is that there is no speech in the window; NaN with a Parakeet model.
    words : tuple of Word or None
        None if they were not asked for.
    temperature : float or None
        At which it was decoded; None if that is not known.
    speaker_turn : bool
        Whether another speaker follows (models trained for it).
    """

    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: tuple[Token, ...] = ()
    avg_logprob: float = math.nan
    compression_ratio: float = math.nan
    no_speech_prob: float = math.nan
    words: tuple[Word, ...] | None = None
    temperature: float | None = None
    speaker_turn: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return it as openai-whisper does; what is not known is None. ``words`` only if there are any to know."""
        found = {
            "id": self.id,
            "seek": self.seek,
            "start": self.start,
            "end": self.end,
            "text": self.text,
            "tokens": [token.id for token in self.tokens],
            "temperature": self.temperature,
            "avg_logprob": _finite(self.avg_logprob),
            "compression_ratio": _finite(self.compression_ratio),
            "no_speech_prob": _finite(self.no_speech_prob),
        }
        if self.words is not None:
            found["words"] = [_word(word) for word in self.words]
        return found


@dataclass(frozen=True)
class TranscriptionInfo(_Record):
    """What is known beside the text; the fields of faster-whisper.

    Attributes
    ----------
    language : str
        Code of the language, such as ``"en"``; ``"und"`` (undetermined) with a Parakeet model.
    language_probability : float
        1 if the language was given; 0 if it is not known.
    duration, duration_after_vad : float
        Seconds of sound, and of what voice activity detection left of it.
    all_language_probs : tuple of (str, float) or None
        All languages, the most likely first, if the language was detected.
    transcription_options, vad_options : object
        The parameters that were used.
    """

    language: str
    language_probability: float
    duration: float
    duration_after_vad: float
    all_language_probs: tuple[tuple[str, float], ...] | None = None
    transcription_options: Any = None
    vad_options: Any = None

    def to_dict(self) -> dict[str, Any]:
        """Return it with plain values; the parameters as dicts."""
        found = {field.name: _plain(getattr(self, field.name)) for field in fields(self)}
        if self.all_language_probs is not None:
            found["all_language_probs"] = [list(pair) for pair in self.all_language_probs]
        return found


@dataclass(frozen=True)
class Transcription(_Record):
    """A whole text.

    Attributes
    ----------
    segments : tuple of Segment
        In order.
    info : TranscriptionInfo
        Language, duration and parameters.
    task : str
        ``"transcribe"`` or ``"translate"``.
    """

    segments: tuple[Segment, ...]
    info: TranscriptionInfo
    task: str = "transcribe"

    @property
    def text(self) -> str:
        """All text, without space around it."""
        return "".join(segment.text for segment in self.segments).strip()

    @property
    def words(self) -> tuple[Word, ...]:
        """All words; empty if they were not asked for."""
        return tuple(word for segment in self.segments for word in segment.words or ())

    @property
    def language(self) -> str:
        """Code of the language, such as ``"en"``; ``"und"`` (undetermined) with a Parakeet model."""
        return self.info.language

    @property
    def language_probability(self) -> float:
        """How likely the language is, 0 to 1."""
        return self.info.language_probability

    @property
    def duration(self) -> float:
        """Seconds of sound."""
        return self.info.duration

    def to_dict(self) -> dict[str, Any]:
        """Return it in the shape of OpenAI's ``verbose_json``.

        ``words`` is there if they were asked for, in each segment too. ``language`` is the code (``"en"``).
        """
        found: dict[str, Any] = {
            "task": self.task,
            "language": self.language,
            "duration": self.duration,
            "text": self.text,
            "segments": [segment.to_dict() for segment in self.segments],
        }
        if any(segment.words is not None for segment in self.segments):
            found["words"] = [_word(word) for word in self.words]
        return found

    def to_text(self, format: str) -> str:
        """Return it in a format of `cyllama.whisper.writers`, such as ``"srt"``.

        Raises
        ------
        ValueError
            There is no such format.
        """
        from .writers import render

        return render(self, format)

    def save(self, path: str | os.PathLike[str], format: str | None = None) -> Path:
        """Write it to a file, whole or not at all.

        Parameters
        ----------
        path : path
            The file; its ending says the format: txt, srt, vtt, tsv, csv, json or lrc.
        format : str, optional
            The format, whatever the ending is; also ``"json-full"``.

        Returns
        -------
        pathlib.Path
            The file.

        Raises
        ------
        ValueError
            There is no such format.
        OSError
            It cannot be written; what was there before is untouched.
        """
        from .writers import save

        return save(self, path, format)


def compression_ratio(text: str) -> float:
    """Return the length of the text in UTF-8 divided by its length after zlib, as openai-whisper computes it."""
    raw = text.encode("utf-8", "surrogatepass")
    return len(raw) / len(zlib.compress(raw))


def _word(word: Word) -> dict[str, Any]:
    return {"word": word.word, "start": word.start, "end": word.end, "probability": _finite(word.probability)}


def _finite(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None


def _plain(value: Any) -> Any:
    """Dataclasses and their like as dicts of what JSON knows; everything else as text."""
    if isinstance(value, bool) or value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        return _finite(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    return repr(value)
