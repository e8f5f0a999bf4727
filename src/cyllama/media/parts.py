"""Pictures and sound in messages, in the forms that programs and clients have them in, and what of it is opened."""

from __future__ import annotations

import base64
import binascii
import fnmatch
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from cyllama.errors import UnsupportedError
from cyllama.media.fetching import fetched

__all__ = ["Folders", "Media", "MediaRules", "check_pictures", "given_media", "part_media"]

# Type of a part: (what it is, the key that has it)
KINDS = {
    "image": ("image", "image"),
    "image_url": ("image", "image_url"),
    "input_image": ("image", "image_url"),
    "audio": ("audio", "audio"),
    "audio_url": ("audio", "audio_url"),
    "input_audio": ("audio", "input_audio"),
}
VIDEOS = ("video", "video_url", "input_video")
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")  # of one letter it is a drive
SHOWN = 60  # characters of an address or of data in messages
URL, DATA, PATH, ANY = "url", "data", "path", "any"  # what a text stands for

Folders = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


@dataclass(frozen=True)
class Media:
    """A picture or a sound.

    Attributes
    ----------
    kind : str
        ``"image"`` or ``"audio"``.
    value : object
        What `cyllama.media.image.to_pixels` or `cyllama.media.audio.load_audio` takes.
    name : str
        Its name in messages.
    """

    kind: str
    value: Any
    name: str


@dataclass(frozen=True, kw_only=True)
class MediaRules:
    """What of the pictures and the sound in messages is opened, and how large it may be.

    Attributes
    ----------
    allow_paths : bool, path or sequence of paths
        Whether paths are opened: all, or those inside of these folders.
    allow_urls : bool, str or sequence of str
        Whether addresses are: all of ``http`` and ``https``, or those of these hosts; ``*`` stands for any letters.
    max_bytes : int
        Of one file.
    max_pixels, max_total_pixels : int
        Of one picture, and of all pictures of a request.
    max_seconds : float
        Of all sound of a request.
    fetch_seconds : float
        Until an address must have answered in full.
    """

    allow_paths: bool | Folders = False
    allow_urls: bool | str | Sequence[str] = False
    max_bytes: int = 64 << 20
    max_pixels: int = 50_000_000
    max_total_pixels: int = 200_000_000
    max_seconds: float = 3600.0
    fetch_seconds: float = 20.0

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "max_total_pixels", "max_seconds", "fetch_seconds"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise ValueError(f"{name} is {value!r}, expected a number above 0")

    def path(self, text: str | os.PathLike[str], name: str) -> Path:
        """The path, if it may be opened.

        Raises
        ------
        ValueError
        """
        if self.allow_paths is False:
            raise ValueError(f"{name} is the path {_short(os.fspath(text))}, which is opened only with allow_paths")
        if self.allow_paths is True:
            return Path(text)
        one = isinstance(self.allow_paths, str | os.PathLike)
        folders = [self.allow_paths] if one else list(self.allow_paths)  # type: ignore[arg-type]
        found = Path(text).resolve()
        if not any(found.is_relative_to(Path(folder).resolve()) for folder in folders):  # type: ignore[arg-type]
            raise ValueError(f"{name} is the path {_short(os.fspath(text))}, which is not inside of allow_paths")
        return found

    def check_url(self, url: str, name: str) -> None:
        """See whether an address may be opened.

        Raises
        ------
        ValueError
        """
        parts = urlsplit(url)
        if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{name} is the address {_short(url)}, expected one of http or https")
        if self.allow_urls is False:
            raise ValueError(f"{name} is the address {_short(url)}, which is opened only with allow_urls")
        if self.allow_urls is True:
            return
        hosts = [self.allow_urls] if isinstance(self.allow_urls, str) else self.allow_urls
        if not any(fnmatch.fnmatchcase(parts.hostname.lower(), host.lower()) for host in hosts):
            raise ValueError(f"{name} is the address {_short(url)}, whose host is not among allow_urls")


def given_media(values: Any, kind: str, name: str) -> list[Media]:
    """What a caller passes as pictures or as sounds: one, several, or none.

    Parameters
    ----------
    values : object, or list, tuple or iterator of objects
        ``(rate, samples)`` is one sound.
    kind : str
        ``"image"`` or ``"audio"``.
    name : str
    """
    if values is None:
        return []
    is_sound = kind == "audio" and isinstance(values, tuple) and len(values) == 2 and isinstance(values[0], Real)
    is_iterator = hasattr(values, "__next__") and not hasattr(values, "read")  # as files are as well
    if is_sound or not (isinstance(values, list | tuple) or is_iterator):
        values = [values]
    return [Media(kind, value, f"{name}[{i}]") for i, value in enumerate(values)]


def check_pictures(image: Any) -> None:
    """Whether there is something to see: a model answers questions about no picture as well.

    Raises
    ------
    TypeError
    """
    if not given_media(image, "image", "image"):
        raise TypeError(f"image is {image!r}, expected a picture or several")


def part_media(part: Mapping[str, Any], name: str, rules: MediaRules, cancel: Any = None) -> Media | None:
    """The picture or the sound of a part of a message.

    Parameters
    ----------
    part : mapping
        OpenAI's ``image_url``, ``input_image`` and ``input_audio``, Anthropic's ``image`` with a ``source``, and
        ``{"type": "image", "image": anything}`` or ``{"type": "audio", "audio": anything}``. A text is an address
        (``data:``, ``http:``, ``https:``, ``file:``), base64, or under the keys ``image``, ``audio`` and ``path`` a
        path.
    name : str
        Its name in messages.
    rules : MediaRules
    cancel : object with ``is_set()``, optional
        Stops a download.

    Returns
    -------
    Media or None
        None if the part is neither; its value is no text.

    Raises
    ------
    UnsupportedError
        It is a video.
    ValueError
        Nothing is in it, or what the rules forbid.
    MediaError, CancelledError
    """
    kind = part.get("type")
    if kind in VIDEOS:
        raise UnsupportedError(f"{name} is a video; give some of its pictures, in order")
    if kind not in KINDS:
        return None
    medium, key = KINDS[kind]
    value, stands_for, where = _value(part, key, name)
    if isinstance(value, str):
        value = _opened(value, stands_for, where, rules, cancel)
    elif isinstance(value, os.PathLike):
        value = rules.path(value, where)
    elif value is None:
        raise ValueError(f"{name} is {str(part)[:200]}, expected a part of type {kind} with {key!r}")
    return Media(medium, value, name)


def _value(part: Mapping[str, Any], key: str, name: str) -> tuple[Any, str, str]:
    """What is in a part, what it stands for if it is a text, and where it is."""
    inner = part.get(key)
    if isinstance(part.get("source"), Mapping):
        inner, key = part["source"], "source"
    if inner is not None and not isinstance(inner, Mapping):
        return inner, ANY if key in ("image", "audio") else URL, f"{name}.{key}"
    place, where = (part, name) if inner is None else (inner, f"{name}.{key}")
    for found, stands_for in (("url", URL), ("data", DATA), ("base64", DATA), ("path", PATH)):
        if place.get(found) is not None:
            return place[found], stands_for, f"{where}.{found}"
    return None, ANY, where


def _opened(text: str, stands_for: str, name: str, rules: MediaRules, cancel: Any) -> Any:
    found = SCHEME.match(text)
    scheme = found[1].lower() if found else ""
    if scheme == "data" and stands_for != PATH:
        head, comma, data = text.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise ValueError(f"{name} is {_short(text)}, expected data:TYPE;base64,DATA")
        return _decoded(data, name, rules)
    if stands_for == PATH or (stands_for == ANY and not scheme):
        return rules.path(text, name)
    if stands_for == DATA or not scheme:
        return _decoded(text, name, rules)
    if scheme == "file":
        parts = urlsplit(text)
        if parts.netloc not in ("", "localhost"):
            raise ValueError(f"{name} is {_short(text)}, a file of another machine")
        return rules.path(url2pathname(parts.path), name)
    return fetched(
        text,
        name,
        lambda url: rules.check_url(url, name),
        max_bytes=rules.max_bytes,
        seconds=rules.fetch_seconds,
        cancel=cancel,
    )


def _decoded(data: str, name: str, rules: MediaRules) -> bytes:
    if len(data) * 3 // 4 > rules.max_bytes + 2:
        raise ValueError(f"{name} has more than {rules.max_bytes:,} bytes, the most that is taken (max_bytes)")
    try:
        found = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        try:  # line breaks, as some encoders make them
            found = base64.b64decode("".join(data.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"{name} is {_short(data)}, expected base64: {error}") from None
    if not found:
        raise ValueError(f"{name} is empty")
    return found


def _short(text: object) -> str:
    shown = str(text)
    return repr(shown if len(shown) <= SHOWN else shown[:SHOWN] + "...")
