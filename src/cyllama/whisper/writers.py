"""Transcriptions as text files: txt, srt, vtt, tsv, csv, lrc, json, json-full. All are UTF-8 with ``\\n``.

``json`` is OpenAI's ``verbose_json``; ``json-full`` is laid out as whisper.cpp's ``-ojf``, with all that is known of
each token. The others go segment by segment, and can be written while a transcription is running (`SegmentWriter`).
"""

from __future__ import annotations

import codecs
import difflib
import json
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from cyllama._native.files import atomic_path, beside, final_path

from .results import Segment, Token, Transcription

__all__ = [
    "FORMATS",
    "LINE_FORMATS",
    "SegmentWriter",
    "csv",
    "json_full",
    "json_verbose",
    "lrc",
    "render",
    "save",
    "srt",
    "timestamp",
    "tsv",
    "txt",
    "vtt",
]


@dataclass(frozen=True)
class _Lines:
    """A format that goes segment by segment."""

    header: str
    entry: Callable[[int, Segment], str]  # of the number of entries so far; empty if there is nothing to write


def timestamp(seconds: float, *, comma: bool = False) -> str:
    """Return a time as ``HH:MM:SS.mmm``, rounded to milliseconds; the hours have more digits if they need them.

    Parameters
    ----------
    seconds : float
        The time; below 0 it is 0.
    comma : bool
        A comma before the milliseconds, as srt has it.

    Raises
    ------
    ValueError
        It is not finite.
    """
    rest, milliseconds = divmod(_milliseconds(seconds), 1000)
    minutes, rest = divmod(rest, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{rest:02d}{',' if comma else '.'}{milliseconds:03d}"


# ------------------------------------------------------------------------------- segment by segment


def txt(segments: Iterable[Segment]) -> str:
    """Return one line for each segment."""
    return _lines("txt", segments)


def srt(segments: Iterable[Segment]) -> str:
    """Return SubRip subtitles. Empty segments are left out; an arrow in the text, which means times, is shortened."""
    return _lines("srt", segments)


def vtt(segments: Iterable[Segment]) -> str:
    """Return WebVTT subtitles. ``&``, ``<`` and ``>`` are escaped, and empty segments are left out."""
    return _lines("vtt", segments)


def tsv(segments: Iterable[Segment]) -> str:
    """Return start and end in milliseconds and the text, separated by tabs; tabs in the text become spaces."""
    return _lines("tsv", segments)


def csv(segments: Iterable[Segment]) -> str:
    """Return start and end in milliseconds and the quoted text, separated by commas."""
    return _lines("csv", segments)


def lrc(segments: Iterable[Segment]) -> str:
    """Return lyrics with the time of each line. Empty segments are left out."""
    return _lines("lrc", segments)


def _txt_entry(_: int, segment: Segment) -> str:
    return _line(segment) + "\n"


def _srt_entry(count: int, segment: Segment) -> str:
    text = "\n".join(_text_lines(segment)).replace("-->", "->")
    times = f"{timestamp(segment.start, comma=True)} --> {timestamp(segment.end, comma=True)}"
    return f"{count + 1}\n{times}\n{text}\n\n" if text else ""


def _vtt_entry(_: int, segment: Segment) -> str:
    text = "\n".join(_text_lines(segment))
    for sign, name in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(sign, name)
    end = max(segment.end, segment.start + 0.001)  # a cue of no length is not valid
    return f"{timestamp(segment.start)} --> {timestamp(end)}\n{text}\n\n" if text else ""


def _tsv_entry(_: int, segment: Segment) -> str:
    text = _line(segment).replace("\t", " ")
    return f"{_milliseconds(segment.start)}\t{_milliseconds(segment.end)}\t{text}\n"


def _csv_entry(_: int, segment: Segment) -> str:
    text = "\n".join(_text_lines(segment)).replace('"', '""')
    return f'{_milliseconds(segment.start)},{_milliseconds(segment.end)},"{text}"\n'


def _lrc_entry(_: int, segment: Segment) -> str:
    text = _line(segment)
    rest, hundredths = divmod(round(_milliseconds(segment.start) / 10), 100)
    minutes, seconds = divmod(rest, 60)
    return f"[{minutes:02d}:{seconds:02d}.{hundredths:02d}]{text}\n" if text else ""


_LINES = {
    "txt": _Lines("", _txt_entry),
    "srt": _Lines("", _srt_entry),
    "vtt": _Lines("WEBVTT\n\n", _vtt_entry),
    "tsv": _Lines("start\tend\ttext\n", _tsv_entry),
    "csv": _Lines("start,end,text\n", _csv_entry),
    "lrc": _Lines("[re:cyllama]\n", _lrc_entry),
}


# ---------------------------------------------------------------------------------------- as a whole


def json_verbose(transcription: Transcription) -> str:
    """Return OpenAI's ``verbose_json``."""
    return _dump(transcription.to_dict())


def json_full(transcription: Transcription) -> str:
    """Return whisper.cpp's full JSON: offsets in milliseconds, ``t_dtw`` in units of 10 ms, -1 if it is not known."""
    return _dump(
        {
            "params": {"language": transcription.language, "translate": transcription.task == "translate"},
            "result": {
                "language": transcription.language,
                "language_probability": transcription.language_probability,
                "duration": transcription.duration,
            },
            "transcription": [_full_segment(segment) for segment in transcription.segments],
        }
    )


def _full_segment(segment: Segment) -> dict[str, Any]:
    found = {
        **_full_times(segment.start, segment.end),
        "text": segment.text,
        "tokens": [_full_token(tokens) for tokens in _characters(segment.tokens)],
        "speaker_turn_next": segment.speaker_turn,
    }
    known = segment.to_dict()
    for name in ("avg_logprob", "compression_ratio", "no_speech_prob", "temperature", "words"):
        if name in known:
            found[name] = known[name]
    return found


def _full_token(tokens: list[Token]) -> dict[str, Any]:
    """Tokens that together are whole characters, under the number of the first, as upstream has it."""
    first, ends = tokens[0], [token.end for token in tokens if token.end is not None]
    times = _full_times(first.start, ends[-1]) if first.start is not None and ends else {}
    return {
        "text": b"".join(token.raw for token in tokens).decode("utf-8", "replace"),
        **times,
        "id": first.id,
        "p": first.probability,
        "plog": first.logprob if math.isfinite(first.logprob) else None,
        "t_dtw": -1 if first.dtw is None else round(first.dtw * 100),
    }


def _full_times(start: float, end: float) -> dict[str, Any]:
    return {
        "timestamps": {"from": timestamp(start, comma=True), "to": timestamp(end, comma=True)},
        "offsets": {"from": _milliseconds(start), "to": _milliseconds(end)},
    }


def _characters(tokens: Iterable[Token]) -> Iterable[list[Token]]:
    """Groups of tokens that end where a character does."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    group: list[Token] = []
    for token in tokens:
        group.append(token)
        decoder.decode(token.raw)
        if not decoder.getstate()[0]:
            yield group
            group = []
    if group:
        yield group


_WHOLE: dict[str, Callable[[Transcription], str]] = {"json": json_verbose, "json-full": json_full}

LINE_FORMATS = tuple(_LINES)
FORMATS = (*_LINES, *_WHOLE)


# ------------------------------------------------------------------------------------- text and files


def render(transcription: Transcription, format: str) -> str:
    """Return a transcription in one of `FORMATS`.

    Raises
    ------
    ValueError
        There is no such format; the message says which come near.
    """
    name = _known(format, FORMATS)
    return _WHOLE[name](transcription) if name in _WHOLE else _lines(name, transcription.segments)


def save(transcription: Transcription, path: str | os.PathLike[str], format: str | None = None) -> Path:
    """Write a transcription to a file that appears, or is replaced, only when it is whole.

    Parameters
    ----------
    transcription : Transcription
        What is written.
    path : path
        The file; its ending says the format, unless `format` does. Folders are not made.
    format : str, optional
        One of `FORMATS`.

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
    path = Path(path)
    text = render(transcription, _format_of(path, format))
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as out:
        out.write(text)
    return path


class SegmentWriter:
    """Writes segments as they come, in a format that goes segment by segment.

    Parameters
    ----------
    target : path or text file
        A path is a file that appears when the writer is closed, whole; if the ``with`` block fails it does not.
        Into a file object, such as ``sys.stdout``, each segment is written and flushed at once; it is left open.
    format : str, optional
        One of `LINE_FORMATS`; by default the ending of the path says it.

    Raises
    ------
    ValueError
        There is no such format, or it cannot be written by segments.
    OSError
        The file cannot be written.

    Examples
    --------
    >>> with SegmentWriter("talk.srt") as out:             # doctest: +SKIP
    ...     for segment in segments:
    ...         out.write(segment)
    """

    def __init__(self, target: str | os.PathLike[str] | TextIO, format: str | None = None) -> None:
        self._path: Path | None = None
        if isinstance(target, (str, os.PathLike)):
            self._lines = _LINES[_by_segment(_format_of(Path(target), format))]
            path = final_path(target)
            self._temporary = beside(path)
            self._out: TextIO = open(self._temporary, "w", encoding="utf-8", newline="")  # noqa: SIM115
            self._path = path
        elif format is None:
            raise ValueError(f"format is None, expected one of {', '.join(LINE_FORMATS)}, as there is no file name")
        else:
            self._lines = _LINES[_by_segment(format)]
            self._out = target
        self._count = 0
        self._open = True
        try:
            self._put(self._lines.header)
        except BaseException:
            self.discard()
            raise

    def write(self, segment: Segment) -> None:
        """Write one segment.

        Raises
        ------
        ValueError
            The writer is closed.
        OSError
            It cannot be written.
        """
        if not self._open:
            raise ValueError("the writer is closed")
        entry = self._lines.entry(self._count, segment)
        if entry:
            self._put(entry)
            self._count += 1

    def close(self) -> None:
        """Let the file appear. A second call does nothing."""
        if not self._open:
            return
        self._open = False
        if self._path is not None:
            try:
                self._out.close()
                os.replace(self._temporary, self._path)
            finally:
                self._temporary.unlink(missing_ok=True)

    def discard(self) -> None:
        """Close without letting the file appear; what was written to a file object stays."""
        if self._open and self._path is not None:
            self._temporary.unlink(missing_ok=True)
            self._out.close()
        self._open = False

    def __enter__(self) -> SegmentWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def _put(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def _lines(format: str, segments: Iterable[Segment]) -> str:
    form, parts = _LINES[format], [_LINES[format].header]
    count = 0
    for segment in segments:
        entry = form.entry(count, segment)
        parts.append(entry)
        count += bool(entry)
    return "".join(parts)


def _milliseconds(seconds: float) -> int:
    if not math.isfinite(seconds):
        raise ValueError(f"a time is {seconds}, expected seconds")
    return max(0, round(seconds * 1000))


def _text_lines(segment: Segment) -> list[str]:
    """The lines of the text that are not empty: an empty one would end a subtitle."""
    return [stripped for line in segment.text.replace("\0", "").splitlines() if (stripped := line.strip())]


def _line(segment: Segment) -> str:
    return " ".join(_text_lines(segment))


def _dump(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def _known(format: str, formats: tuple[str, ...]) -> str:
    name = format.lower().lstrip(".") if isinstance(format, str) else format
    if name in formats:
        return name
    near = difflib.get_close_matches(str(name), formats, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(formats)}"
    raise ValueError(f"format is {format!r}; {hint}")


def _by_segment(format: str) -> str:
    if _known(format, FORMATS) in _WHOLE:
        raise ValueError(
            f"format is {format!r}, which is written as a whole; expected one of {', '.join(LINE_FORMATS)}"
        )
    return _known(format, FORMATS)


def _format_of(path: Path, format: str | None) -> str:
    if format is not None:
        return _known(format, FORMATS)
    suffix = path.suffix.lower().lstrip(".")
    if suffix not in FORMATS:
        endings = ", ".join(f".{name}" for name in (*_LINES, "json"))
        raise ValueError(f"the ending of {path.name!r} says no format, expected {endings}, or a format beside it")
    return suffix
