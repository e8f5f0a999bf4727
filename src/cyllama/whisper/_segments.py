"""The records of a transcription: words, tokens and segments. Public as `cyllama.whisper.results`."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import Any

__all__ = ["Record", "Segment", "Token", "Word", "compression_ratio", "finite", "shorten"]

REPR_CHARS = 40  # of a text


class Record:
    """Base of the results: fields can also be read as items."""

    def __getitem__(self, name: str) -> Any:
        if not isinstance(name, str) or name.startswith("_") or not hasattr(self, name):
            raise KeyError(name)
        return getattr(self, name)


@dataclass(frozen=True)
class Word(Record):
    """One word.

    Attributes
    ----------
    start, end : float
        In seconds.
    word : str
        Text, including the space before it.
    probability : float
        Mean probability of the tokens, 0 to 1.
    """

    start: float
    end: float
    word: str
    probability: float

    def __repr__(self) -> str:
        return f"Word({self.start:.2f}-{self.end:.2f} s, {shorten(self.word)}, p={self.probability:.2f})"

    def to_dict(self) -> dict[str, Any]:
        """Return the word in the form of openai-whisper; values that are not finite are None."""
        return {"word": self.word, "start": self.start, "end": self.end, "probability": finite(self.probability)}


@dataclass(frozen=True)
class Token(Record):
    """One token of the text.

    Attributes
    ----------
    id : int
        Index in the vocabulary.
    raw : bytes
        Text in UTF-8; a character may be split between tokens.
    probability, logprob : float
        Probability, 0 to 1, and its natural logarithm.
    start, end : float or None
        In seconds, with token timestamps.
    dtw : float or None
        End of the token in seconds by alignment (dynamic time warping), before it is moved out of a pause.
    """

    id: int
    raw: bytes
    probability: float
    logprob: float
    start: float | None = None
    end: float | None = None
    dtw: float | None = None

    def __repr__(self) -> str:
        return f"Token({self.id}, {shorten(self.text)}, p={self.probability:.2f})"

    @property
    def text(self) -> str:
        """Text of the token; a part of a character is U+FFFD."""
        return self.raw.decode("utf-8", "replace")


@dataclass(frozen=True)
class Segment(Record):
    """A part of the text, usually a sentence.

    Attributes
    ----------
    id : int
        Index, from 0.
    seek : int
        Start of the chunk of audio, in frames of 10 ms.
    start, end : float
        In seconds.
    text : str
        Text, including the space before it; equal to the joined words.
    tokens : tuple of int
        Ids of the tokens, without timestamps and other special tokens.
    avg_logprob : float
        Mean log-probability of the tokens.
    compression_ratio : float
        Length of the text divided by its compressed length. Above 2.4, the text probably repeats itself.
    no_speech_prob : float
        Probability that the window has no speech; NaN with a Parakeet model.
    words : tuple of Word or None
        None without ``word_timestamps``.
    temperature : float or None
        Sampling temperature; None with a Parakeet model.
    speaker_turn : bool
        Whether the speaker changes after the segment (models trained for it).
    token_details : tuple of Token
        The tokens with their text, probability and times.
    """

    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: tuple[int, ...] = ()
    avg_logprob: float = math.nan
    compression_ratio: float = math.nan
    no_speech_prob: float = math.nan
    words: tuple[Word, ...] | None = None
    temperature: float | None = None
    speaker_turn: bool = False
    token_details: tuple[Token, ...] = ()

    def __repr__(self) -> str:
        return f"Segment({self.id}, {self.start:.2f}-{self.end:.2f} s, {shorten(self.text)})"

    def to_dict(self) -> dict[str, Any]:
        """Return the segment in the form of openai-whisper.

        Values that are unknown are None. ``words`` is present with ``word_timestamps``.
        """
        found = {
            "id": self.id,
            "seek": self.seek,
            "start": self.start,
            "end": self.end,
            "text": self.text,
            "tokens": list(self.tokens),
            "temperature": self.temperature,
            "avg_logprob": finite(self.avg_logprob),
            "compression_ratio": finite(self.compression_ratio),
            "no_speech_prob": finite(self.no_speech_prob),
        }
        if self.words is not None:
            found["words"] = [word.to_dict() for word in self.words]
        return found


def compression_ratio(text: str) -> float:
    """Return the length of a text in UTF-8 divided by its length after zlib, as in openai-whisper."""
    raw = text.encode("utf-8", "surrogatepass")
    return len(raw) / len(zlib.compress(raw))


def finite(value: float) -> float | None:
    """Return a number, or None if it is not finite: JSON has no NaN."""
    return value if math.isfinite(value) else None


def shorten(text: str) -> str:
    """Return the `repr` of a text, or of its beginning."""
    return repr(text if len(text) <= REPR_CHARS else text[: REPR_CHARS - 1] + "…")
