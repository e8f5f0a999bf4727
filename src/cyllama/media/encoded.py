"""Encoded media in requests: base64, data URLs, and the headers of audio files."""

from __future__ import annotations

import base64
import re
from urllib.parse import unquote_to_bytes

from cyllama.media._file_kinds import HEAD_BYTES, text_kind

__all__ = ["decode_base64", "is_audio_file", "is_data_url", "shorten"]

# The media type of a data URL and its parameters, which may be quoted; the data follow the comma.
DATA_URL = re.compile(r'\s*data:((?:[^,"]|"[^"]{0,200}"){0,400}),', re.IGNORECASE)
URL = re.compile(r"\s*(https?|ftp|file):", re.IGNORECASE)
# A path in the alphabet of base64; that of a JPEG file begins with /9j/.
PATH = re.compile(r"/(?!9j/|/)[^=]{0,255}")
SPACE = b" \t\r\n\f\v"
STANDARD = bytes.maketrans(b"-_", b"+/")  # of the alphabet for URLs
EXPECTED = "expected base64 or data:TYPE;base64,DATA"
SHOWN = 60  # characters of an address or of data in messages
MP3_SYNC = 0xE0


def is_data_url(text: str) -> bool:
    """Return whether a text begins as a data URL."""
    return text[:64].lstrip()[:5].casefold() == "data:"


def decode_base64(text: str, name: str, *, max_bytes: int | None = None) -> bytes:
    """Decode base64, or a data URL.

    Parameters
    ----------
    text : str
        ``data:TYPE;base64,DATA``, ``data:TYPE,DATA`` with percent-encoded data, or base64 alone. Spaces and line
        breaks are ignored. Base64 may lack its padding, have the alphabet for URLs, and be percent-encoded.
    name : str
        The name of the value in messages.
    max_bytes : int, optional
        Largest size of the decoded data, compared before decoding.

    Raises
    ------
    ValueError
        The text is not base64, is empty, or is too large.
    """
    head = DATA_URL.match(text)
    data = text[head.end() :] if head else text
    is_base64 = head is None or head[1].rpartition(";")[2].strip().casefold() == "base64"
    if max_bytes is not None and _count(data, is_base64) > max_bytes + 2:
        raise ValueError(f"{name} has more than {max_bytes:,} bytes (max_bytes)")
    try:
        if head is None and PATH.fullmatch(text):
            raise ValueError
        raw = unquote_to_bytes(data) if "%" in data or not is_base64 else data.encode("ascii")
        found = _decode(raw) if is_base64 else raw
    except ValueError:
        raise ValueError(f"{name} is {_describe(text)}, {EXPECTED}") from None
    if not found:
        raise ValueError(f"{name} is empty, {EXPECTED}")
    return found


def _count(data: str, is_base64: bool) -> int:
    """Return the number of bytes that data decode to, apart from padding."""
    count = len(data) - 2 * data.count("%")
    return (count - sum(map(data.count, SPACE.decode()))) * 3 // 4 if is_base64 else count


def _decode(raw: bytes) -> bytes:
    raw = raw.translate(STANDARD, SPACE).rstrip(b"=")
    return base64.b64decode(raw + b"=" * (-len(raw) % 4), validate=True)


def _describe(text: str) -> str:
    """Return what a text is that is not base64, for a message."""
    if URL.match(text):
        return f"the URL {shorten(text)}, which is not opened"
    kind = None if is_data_url(text) else text_kind(text[:HEAD_BYTES].encode("utf-8", "replace"))
    return shorten(text) if kind in (None, "text") else f"{shorten(text)}, {kind}"


def is_audio_file(head: bytes) -> bool:
    """Return whether a file is WAV, MP3 or FLAC by its first 12 bytes, as mtmd distinguishes audio from images."""
    wav = head[:4] == b"RIFF" and head[8:12] == b"WAVE"
    mp3 = head[:3] == b"ID3" or (head[:1] == b"\xff" and len(head) > 1 and head[1] & MP3_SYNC == MP3_SYNC)
    return len(head) >= 12 and (wav or mp3 or head[:4] == b"fLaC")


def shorten(text: object) -> str:
    """Return the representation of a text for a message, cut to `SHOWN` characters."""
    shown = str(text)
    return repr(shown if len(shown) <= SHOWN else shown[:SHOWN] + "...")
