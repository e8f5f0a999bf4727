"""Text formats of transcriptions: txt, srt, vtt, tsv, csv, lrc, json and json-full. All are UTF-8 with ``\\n``.

`Transcription.to_text` and `Transcription.save` write all formats. The formats with an entry for each segment
(`LINE_FORMATS`) can also be written during a transcription, with `SegmentWriter`.
"""

from __future__ import annotations

import codecs
import contextlib
import difflib
import json
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from cyllama._native.files import atomic_path, final_path, naming
from cyllama.errors import CancelledError
from cyllama.whisper._segments import Segment, Token

__all__ = [
    "FORMATS",
    "LINE_FORMATS",
    "SegmentWriter",
    "check_format",
    "csv",
    "dump_json",
    "format_of_path",
    "format_segments",
    "full_segment",
    "lrc",
    "srt",
    "timestamp",
    "tsv",
    "txt",
    "vtt",
]


@dataclass(frozen=True)
class _LineFormat:
    """A format with a header and an entry for each segment."""

    header: str
    entry: Callable[[int, Segment], str]  # takes the number of entries so far; returns "" for no entry


def timestamp(seconds: float, *, comma: bool = False) -> str:
    """Return a time as ``HH:MM:SS.mmm``, rounded to milliseconds. Hours have two digits or more.

    Parameters
    ----------
    seconds : float
        The time. Negative times become 0.
    comma : bool
        Put a comma before the milliseconds, as in srt.

    Raises
    ------
    ValueError
        The time is not finite.
    """
    rest, milliseconds = divmod(_milliseconds(seconds), 1000)
    minutes, rest = divmod(rest, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{rest:02d}{',' if comma else '.'}{milliseconds:03d}"


# ------------------------------------------------------------------------------------ line formats


def txt(segments: Iterable[Segment]) -> str:
    """Return one line for each segment."""
    return format_segments(segments, "txt")


def srt(segments: Iterable[Segment]) -> str:
    """Return SubRip subtitles, without empty segments; ``-->`` in the text becomes ``->``."""
    return format_segments(segments, "srt")


def vtt(segments: Iterable[Segment]) -> str:
    """Return WebVTT subtitles, without empty segments; ``&``, ``<`` and ``>`` are escaped."""
    return format_segments(segments, "vtt")


def tsv(segments: Iterable[Segment]) -> str:
    """Return start and end in milliseconds and the text, separated by tabs; tabs in the text become spaces."""
    return format_segments(segments, "tsv")


def csv(segments: Iterable[Segment]) -> str:
    """Return start and end in milliseconds and the quoted text, separated by commas."""
    return format_segments(segments, "csv")


def lrc(segments: Iterable[Segment]) -> str:
    """Return LRC lyrics with the time of each line, without empty segments."""
    return format_segments(segments, "lrc")


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
    end = max(segment.end, segment.start + 0.001)  # the duration of a cue cannot be 0
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


_LINE_FORMATS = {
    "txt": _LineFormat("", _txt_entry),
    "srt": _LineFormat("", _srt_entry),
    "vtt": _LineFormat("WEBVTT\n\n", _vtt_entry),
    "tsv": _LineFormat("start\tend\ttext\n", _tsv_entry),
    "csv": _LineFormat("start,end,text\n", _csv_entry),
    "lrc": _LineFormat("[re:cyllama]\n", _lrc_entry),
}


LINE_FORMATS = tuple(_LINE_FORMATS)
FORMATS = (*LINE_FORMATS, "json", "json-full")


def format_segments(segments: Iterable[Segment], format: str) -> str:
    """Return segments in one of `LINE_FORMATS`."""
    line_format = _LINE_FORMATS[format]
    parts, count = [line_format.header], 0
    for segment in segments:
        entry = line_format.entry(count, segment)
        parts.append(entry)
        count += bool(entry)
    return "".join(parts)


# -------------------------------------------------------------------------------------------- JSON


def dump_json(value: dict[str, Any]) -> str:
    """Return a dict as indented JSON."""
    return json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def full_segment(segment: Segment) -> dict[str, Any]:
    """Return a segment as in whisper.cpp's full JSON, with further fields of `Segment.to_dict`."""
    found = {
        **_full_times(segment.start, segment.end),
        "text": segment.text,
        "tokens": [_full_token(tokens) for tokens in _group_characters(segment.token_details)],
        "speaker_turn_next": segment.speaker_turn,
    }
    known = segment.to_dict()
    for name in ("avg_logprob", "compression_ratio", "no_speech_prob", "temperature", "words"):
        if name in known:
            found[name] = known[name]
    return found


def _full_token(tokens: list[Token]) -> dict[str, Any]:
    """Return tokens that together are whole characters, with the id of the first, as upstream does."""
    first, ends = tokens[0], [token.end for token in tokens if token.end is not None]
    times = _full_times(first.start, ends[-1]) if first.start is not None and ends else {}
    return {
        "text": b"".join(token.raw for token in tokens).decode("utf-8", "replace"),
        **times,
        "id": first.id,
        "p": first.probability,
        "plog": first.logprob if math.isfinite(first.logprob) else None,
        "t_dtw": -1 if tokens[-1].dtw is None else round(tokens[-1].dtw * 100),
    }


def _full_times(start: float, end: float) -> dict[str, Any]:
    return {
        "timestamps": {"from": timestamp(start, comma=True), "to": timestamp(end, comma=True)},
        "offsets": {"from": _milliseconds(start), "to": _milliseconds(end)},
    }


def _group_characters(tokens: Iterable[Token]) -> Iterable[list[Token]]:
    """Yield groups of tokens that end at the end of a character."""
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


# ------------------------------------------------------------------------------------------- files


class SegmentWriter:
    """Write segments during a transcription, in one of `LINE_FORMATS`.

    Parameters
    ----------
    target : path or text file
        A path is written atomically: the file appears when the writer is closed, and not if the ``with`` block raises.
        A file object, such as ``sys.stdout``, gets each segment at once, is flushed, and stays open.
    format : str, optional
        One of `LINE_FORMATS`; by default the extension of the path.

    Raises
    ------
    ValueError
        The format is unknown, or is not a line format.
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
            self._format = _LINE_FORMATS[_check_line_format(format_of_path(Path(target), format))]
            self._path = final_path(target)
            self._file = atomic_path(self._path)
            self._out: TextIO = open(self._file.__enter__(), "w", encoding="utf-8", newline="")  # noqa: SIM115
        elif format is None:
            raise ValueError(f"format is None, expected one of {', '.join(LINE_FORMATS)} for a file object")
        else:
            self._format = _LINE_FORMATS[_check_line_format(format)]
            self._out = target
        self._count = 0
        self._open = True
        try:
            self._write(self._format.header)
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
            The segment cannot be written.
        """
        if not self._open:
            raise ValueError("the writer is closed")
        entry = self._format.entry(self._count, segment)
        if entry:
            self._write(entry)
            self._count += 1

    def close(self) -> None:
        """Complete the file. A second call does nothing."""
        if not self._open:
            return
        self._open = False
        if self._path is not None:
            try:
                self._out.close()
            except BaseException as error:
                self._file.__exit__(type(error), error, error.__traceback__)
                raise
            self._file.__exit__(None, None, None)

    def discard(self) -> None:
        """Close without a file; segments written to a file object remain."""
        if self._open and self._path is not None:
            with contextlib.suppress(OSError):  # what is left in the buffer is not needed
                self._out.close()
            reason = CancelledError("the file is not written")
            self._file.__exit__(CancelledError, reason, None)
        self._open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def _write(self, text: str) -> None:
        with contextlib.nullcontext() if self._path is None else naming(self._path):
            self._out.write(text)
            self._out.flush()


def _milliseconds(seconds: float) -> int:
    if not math.isfinite(seconds):
        raise ValueError(f"seconds is {seconds}, expected a finite number")
    return max(0, round(seconds * 1000))


def _text_lines(segment: Segment) -> list[str]:
    """Return the non-empty lines of the text: an empty line would end a subtitle."""
    return [stripped for line in segment.text.replace("\0", "").splitlines() if (stripped := line.strip())]


def _line(segment: Segment) -> str:
    return " ".join(_text_lines(segment))


def check_format(format: str, formats: tuple[str, ...] = FORMATS) -> str:
    """Return the name of a format in lower case, without a leading dot.

    Raises
    ------
    ValueError
        The format is unknown; the message suggests a similar one.
    """
    name = format.lower().lstrip(".") if isinstance(format, str) else format
    if name in formats:
        return name
    near = difflib.get_close_matches(str(name), formats, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(formats)}"
    raise ValueError(f"format is {format!r}; {hint}")


def format_of_path(path: Path, format: str | None = None) -> str:
    """Return the format of a file: `format`, or by default the extension.

    Raises
    ------
    ValueError
        The format or the extension is unknown.
    """
    if format is not None:
        return check_format(format)
    suffix = path.suffix.lower().lstrip(".")
    if suffix not in FORMATS:
        extensions = ", ".join(f".{name}" for name in (*LINE_FORMATS, "json"))
        raise ValueError(f"path is {path.name!r}, expected the extension {extensions}, or give a format")
    return suffix


def _check_line_format(format: str) -> str:
    name = check_format(format)
    if name not in LINE_FORMATS:
        raise ValueError(f"format is {format!r}, expected one of {', '.join(LINE_FORMATS)} for single segments")
    return name
