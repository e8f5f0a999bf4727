"""Results of a transcription: immutable records with the field names of faster-whisper and openai-whisper.

All times are seconds from the beginning of the audio. Fields can be read as attributes and as items
(``segment.text``, ``segment["text"]``).
"""

from __future__ import annotations

import html
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

from cyllama._native.files import atomic_path
from cyllama._paths import expanded
from cyllama.whisper import writers
from cyllama.whisper._segments import Record, Segment, Token, Word, compression_ratio, finite, shorten
from cyllama.whisper.options import TranscribeOptions, VadOptions

__all__ = ["DetectedLanguage", "Segment", "Token", "Transcription", "TranscriptionInfo", "Word", "compression_ratio"]

MARKDOWN = re.compile(r"([\\`*_\[\]|~$])")


class DetectedLanguage(NamedTuple):
    """The language of a recording.

    Attributes
    ----------
    language : str
        Code, such as ``"en"``.
    probability : float
        Probability of the language, 0 to 1.
    all_probabilities : tuple of (str, float)
        Codes and probabilities of all languages, the most likely first.
    """

    language: str
    probability: float
    all_probabilities: tuple[tuple[str, float], ...]

    def __repr__(self) -> str:
        return f"DetectedLanguage({self.language!r}, p={self.probability:.2f})"


@dataclass(frozen=True)
class TranscriptionInfo(Record):
    """Language, duration and options of a transcription; the fields of faster-whisper.

    Attributes
    ----------
    language : str
        Code of the language, such as ``"en"``; ``"und"`` (undetermined) with a Parakeet model.
    language_probability : float
        1 if the language was given, 0 if it is unknown.
    duration, duration_after_vad : float
        Seconds of audio, in total and after voice activity detection.
    all_language_probs : tuple of (str, float) or None
        All languages, the most likely first, if the language was detected.
    transcription_options : TranscribeOptions or None
        The options of the transcription.
    vad_options : VadOptions or None
        The options of voice activity detection; None without it.
    """

    language: str
    language_probability: float
    duration: float
    duration_after_vad: float
    all_language_probs: tuple[tuple[str, float], ...] | None = None
    transcription_options: TranscribeOptions | None = None
    vad_options: VadOptions | None = None

    def __repr__(self) -> str:
        return f"TranscriptionInfo({self.language!r}, p={self.language_probability:.2f}, {self.duration:.2f} s)"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values; options are dicts."""
        found = {field.name: _plain(getattr(self, field.name)) for field in fields(self)}
        if self.all_language_probs is not None:
            found["all_language_probs"] = [list(pair) for pair in self.all_language_probs]
        return found


@dataclass(frozen=True)
class Transcription(Record):
    """The text of a recording. ``str()`` returns it; notebooks show a table with times.

    Attributes
    ----------
    segments : tuple of Segment
        In order of time.
    info : TranscriptionInfo
        Language, duration and options.
    task : str
        ``"transcribe"`` or ``"translate"``.
    """

    segments: tuple[Segment, ...]
    info: TranscriptionInfo
    task: str = "transcribe"

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        count = f"{len(self.segments)} segment{'' if len(self.segments) == 1 else 's'}"
        return f"Transcription({shorten(self.text)}, {self.language!r}, {self.duration:.2f} s, {count})"

    @property
    def text(self) -> str:
        """The whole text, without surrounding spaces."""
        return "".join(segment.text for segment in self.segments).strip()

    @property
    def words(self) -> tuple[Word, ...]:
        """All words; empty without ``word_timestamps``."""
        return tuple(word for segment in self.segments for word in segment.words or ())

    @property
    def language(self) -> str:
        """Code of the language, such as ``"en"``; ``"und"`` (undetermined) with a Parakeet model."""
        return self.info.language

    @property
    def language_probability(self) -> float:
        """Probability of the language, 0 to 1."""
        return self.info.language_probability

    @property
    def duration(self) -> float:
        """Seconds of audio."""
        return self.info.duration

    def to_dict(self) -> dict[str, Any]:
        """Return the text in the form of OpenAI's ``verbose_json``.

        ``words`` is present with ``word_timestamps``, also in each segment. ``language`` is the code (``"en"``).
        """
        found: dict[str, Any] = {
            "task": self.task,
            "language": self.language,
            "duration": self.duration,
            "text": self.text,
            "segments": [segment.to_dict() for segment in self.segments],
        }
        if any(segment.words is not None for segment in self.segments):
            found["words"] = [word.to_dict() for word in self.words]
        return found

    def to_text(self, format: str) -> str:
        """Return the text in a file format.

        Parameters
        ----------
        format : str
            One of `cyllama.whisper.writers.FORMATS`. ``"json"`` is OpenAI's ``verbose_json``; ``"json-full"`` is
            whisper.cpp's ``-ojf``: offsets in milliseconds, all tokens, ``t_dtw`` in units of 10 ms or -1.

        Raises
        ------
        ValueError
            The format is unknown.
        """
        name = writers.check_format(format)
        if name == "json":
            return writers.dump_json(self.to_dict())
        if name == "json-full":
            return writers.dump_json(self._full_dict())
        return writers.format_segments(self.segments, name)

    def save(self, path: str | os.PathLike[str], format: str | None = None) -> Path:
        """Write the text to a file, atomically: the file is replaced only when all is written.

        Parameters
        ----------
        path : path
            The file. Its extension is the format: txt, srt, vtt, tsv, csv, json or lrc. Folders are not created.
        format : str, optional
            The format if it is not the extension, such as ``"json-full"``.

        Returns
        -------
        pathlib.Path
            The file.

        Raises
        ------
        ValueError
            The format is unknown.
        OSError
            The file cannot be written; a file that existed before is unchanged.
        """
        path = expanded(path)
        text = self.to_text(writers.format_of_path(path, format))
        with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as out:
            out.write(text)
        return path

    def _full_dict(self) -> dict[str, Any]:
        return {
            "params": {"language": self.language, "translate": self.task == "translate"},
            "result": {
                "language": self.language,
                "language_probability": self.language_probability,
                "duration": self.duration,
            },
            "transcription": [writers.full_segment(segment) for segment in self.segments],
        }

    def _repr_html_(self) -> str:
        rows = [
            f"<tr><td>{start}</td><td>{end}</td><td style='text-align: left'>{html.escape(text)}</td></tr>"
            for start, end, text in self._rows()
        ]
        head = "<thead><tr><th>Start</th><th>End</th><th>Text</th></tr></thead>"
        return f"<table>{head}<tbody>{''.join(rows)}</tbody></table>"

    def _repr_markdown_(self) -> str:
        rows = [f"| {start} | {end} | {_escape_markdown(text)} |" for start, end, text in self._rows()]
        return "\n".join(["| Start | End | Text |", "| ---: | ---: | :--- |", *rows])

    def _rows(self) -> list[tuple[str, str, str]]:
        """Return start, end and text of each segment, for tables."""
        return [
            (writers.timestamp(segment.start), writers.timestamp(segment.end), " ".join(segment.text.split()))
            for segment in self.segments
        ]


def _escape_markdown(text: str) -> str:
    return MARKDOWN.sub(r"\\\1", html.escape(text, quote=False))


def _plain(value: object) -> Any:
    """Return a value in types that JSON has: dataclasses as dicts, and `repr` for what is left."""
    if isinstance(value, bool) or value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        return finite(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    return repr(value)
