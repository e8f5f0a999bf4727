"""Encoded media in requests: base64, data URLs, and the headers of audio files."""

from __future__ import annotations

import base64
import binascii
import re

__all__ = ["decode_base64", "is_audio_file", "shorten"]

DATA_URL = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
SHOWN = 60  # characters of an address or of data in messages
MP3_SYNC = 0xE0


def decode_base64(text: str, name: str, *, max_bytes: int | None = None) -> bytes:
    """Decode base64, or a data URL with base64.

    Parameters
    ----------
    text : str
        ``data:TYPE;base64,DATA``, or the data alone; line breaks are ignored.
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
    if max_bytes is not None and len(data) * 3 // 4 > max_bytes + 2:
        raise ValueError(f"{name} has more than {max_bytes:,} bytes (max_bytes)")
    try:
        found = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        try:
            found = base64.b64decode("".join(data.split()), validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(f"{name} is {shorten(text)}, expected base64 or data:TYPE;base64,DATA") from None
    if not found:
        raise ValueError(f"{name} is empty, expected base64 or data:TYPE;base64,DATA")
    return found


def is_audio_file(head: bytes) -> bool:
    """Return whether a file is WAV, MP3 or FLAC by its first 12 bytes, as mtmd distinguishes audio from images."""
    wav = head[:4] == b"RIFF" and head[8:12] == b"WAVE"
    mp3 = head[:3] == b"ID3" or (head[:1] == b"\xff" and len(head) > 1 and head[1] & MP3_SYNC == MP3_SYNC)
    return len(head) >= 12 and (wav or mp3 or head[:4] == b"fLaC")


def shorten(text: object) -> str:
    """Return the representation of a text for a message, cut to `SHOWN` characters."""
    shown = str(text)
    return repr(shown if len(shown) <= SHOWN else shown[:SHOWN] + "...")
