"""Images and audio in messages: the forms of OpenAI, Anthropic and Python objects, and what may be opened."""

from __future__ import annotations

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

from cyllama._cancel import Cancel
from cyllama._paths import expanded
from cyllama.errors import UnsupportedError
from cyllama.media._download import fetch
from cyllama.media.encoded import decode_base64, shorten

__all__ = ["Folders", "Media", "MediaRules", "check_images", "list_media", "part_media"]

# type of a part: (kind of media, key of its value)
KINDS = {
    "image": ("image", "image"),
    "image_url": ("image", "image_url"),
    "input_image": ("image", "image_url"),
    "audio": ("audio", "audio"),
    "audio_url": ("audio", "audio_url"),
    "input_audio": ("audio", "input_audio"),
}
VIDEOS = ("video", "video_url", "input_video")
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")  # one letter is a drive
URL, DATA, PATH, ANY = "url", "data", "path", "any"  # what a string may be

Folders = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


@dataclass(frozen=True)
class Media:
    """An image or an audio clip.

    Attributes
    ----------
    kind : str
        ``"image"`` or ``"audio"``.
    value : object
        A value for `cyllama.media.image.to_pixels` or `cyllama.media.audio.load_audio`.
    name : str
        The name of the value in messages.
    """

    kind: str
    value: Any
    name: str


@dataclass(frozen=True, kw_only=True)
class MediaRules:
    """Which images and audio in messages are opened, and how large they may be.

    Attributes
    ----------
    allow_paths : bool, path or sequence of paths
        Whether paths are opened: all, or those in these folders.
    allow_urls : bool, str or sequence of str
        Whether ``http`` and ``https`` URLs are opened: all, or those of these hosts; ``*`` matches any characters.
        Addresses that are not public (this machine, its network) are opened only for a host that is given in full.
    max_bytes : int
        Size of one file.
    max_pixels, max_total_pixels : int
        Pixels of one image, and of all images of a request.
    max_seconds : float
        Duration of all audio of a request.
    fetch_seconds : float
        Timeout of a complete download.
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
        """Return the path if it may be opened.

        Raises
        ------
        ValueError
        """
        shown = shorten(os.fspath(text))
        if self.allow_paths is False:
            raise ValueError(f"{name} is the path {shown}, which is opened only with allow_paths")
        if self.allow_paths is True:
            return Path(text)
        one = isinstance(self.allow_paths, str | os.PathLike)
        folders = [self.allow_paths] if one else list(self.allow_paths)  # type: ignore[arg-type]
        found = Path(text).resolve()
        if not any(found.is_relative_to(expanded(folder).resolve()) for folder in folders):  # type: ignore[arg-type]
            raise ValueError(f"{name} is the path {shown}, which is not in allow_paths")
        return found

    def check_url(self, url: str, name: str) -> None:
        """Check that a URL may be opened.

        Raises
        ------
        ValueError
        """
        parts = urlsplit(url)
        if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{name} is the URL {shorten(url)}, expected one of http or https")
        if self.allow_urls is False:
            raise ValueError(f"{name} is the URL {shorten(url)}, which is opened only with allow_urls")
        if self.allow_urls is True:
            return
        if not any(fnmatch.fnmatchcase(parts.hostname.lower(), host) for host in self._hosts()):
            raise ValueError(f"{name} is the URL {shorten(url)}, whose host is not in allow_urls")

    def allow_private(self, host: str) -> bool:
        """Return whether a host may have an address that is not public."""
        return host.strip("[]").lower() in self._hosts()

    def _hosts(self) -> list[str]:
        if isinstance(self.allow_urls, bool):
            return []
        hosts = [self.allow_urls] if isinstance(self.allow_urls, str) else self.allow_urls
        return [host.lower() for host in hosts]


def list_media(values: Any, kind: str, name: str) -> list[Media]:
    """Return the images or the audio of an argument: one value, several, or None.

    Parameters
    ----------
    values : object, or list, tuple or iterator of objects
        ``(rate, samples)`` is one audio clip.
    kind : str
        ``"image"`` or ``"audio"``.
    name : str
    """
    if values is None:
        return []
    is_clip = kind == "audio" and isinstance(values, tuple) and len(values) == 2 and isinstance(values[0], Real)
    is_iterator = hasattr(values, "__next__") and not hasattr(values, "read")  # files are iterators, too
    if is_clip or not (isinstance(values, list | tuple) or is_iterator):
        values = [values]
    return [Media(kind, value, f"{name}[{i}]") for i, value in enumerate(values)]


def check_images(image: Any) -> None:
    """Check that there is an image: a model also responds to questions without one.

    Raises
    ------
    TypeError
    """
    if not list_media(image, "image", "image"):
        raise TypeError(f"image is {image!r}, expected an image or several")


def part_media(part: Mapping[str, Any], name: str, rules: MediaRules, cancel: Cancel | None = None) -> Media | None:
    """Return the image or the audio of a part of a message.

    Parameters
    ----------
    part : mapping
        OpenAI's ``image_url``, ``input_image`` and ``input_audio``, Anthropic's ``image`` with a ``source``, and
        ``{"type": "image", "image": anything}`` or ``{"type": "audio", "audio": anything}``. A string is a URL
        (``data:``, ``http:``, ``https:``, ``file:``) or base64; under the keys ``image``, ``audio`` and ``path`` it is
        a path.
    name : str
        The name of the part in messages.
    rules : MediaRules
    cancel : Cancel, optional
        Stops a download.

    Returns
    -------
    Media or None
        None if the part contains neither. The value is not a string.

    Raises
    ------
    UnsupportedError
        The part is a video.
    ValueError
        The part is empty, or the rules forbid its value.
    MediaError, CancelledError
    """
    kind = part.get("type")
    if kind in VIDEOS:
        raise UnsupportedError(f"{name} is a video, expected some of its images, in order")
    if not isinstance(kind, str) or kind not in KINDS:
        return None
    medium, key = KINDS[kind]
    value, form, where = _value(part, key, name)
    if isinstance(value, str):
        value = _open(value, form, where, rules, cancel)
    elif isinstance(value, os.PathLike):
        value = rules.path(value, where)
    elif value is None:
        raise ValueError(f"{name} is {str(part)[:200]}, expected a part of type {kind} with {key!r}")
    return Media(medium, value, name)


def _value(part: Mapping[str, Any], key: str, name: str) -> tuple[Any, str, str]:
    """Return the value of a part, what a string is there, and its name."""
    inner = part.get(key)
    if isinstance(part.get("source"), Mapping):
        inner, key = part["source"], "source"
    if inner is not None and not isinstance(inner, Mapping):
        return inner, ANY if key in ("image", "audio") else URL, f"{name}.{key}"
    place, where = (part, name) if inner is None else (inner, f"{name}.{key}")
    for found, form in (("url", URL), ("data", DATA), ("base64", DATA), ("path", PATH)):
        if place.get(found) is not None:
            return place[found], form, f"{where}.{found}"
    return None, ANY, where


def _open(text: str, form: str, name: str, rules: MediaRules, cancel: Cancel | None) -> bytes | Path:
    found = SCHEME.match(text)
    scheme = found[1].lower() if found else ""
    if form == PATH or (form == ANY and not scheme):
        return rules.path(text, name)
    if form == DATA or scheme in ("", "data"):
        return decode_base64(text, name, max_bytes=rules.max_bytes)
    if scheme == "file":
        parts = urlsplit(text)
        if parts.netloc not in ("", "localhost"):
            raise ValueError(f"{name} is {shorten(text)}, a file of another machine")
        return rules.path(url2pathname(parts.path), name)
    return fetch(
        text,
        name,
        lambda url: rules.check_url(url, name),
        allow_private=rules.allow_private,
        max_bytes=rules.max_bytes,
        seconds=rules.fetch_seconds,
        cancel=cancel,
    )
