"""Pictures and sounds in requests to language models: neither path nor address, and not larger than allowed."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Any

from cyllama.server.bodies import containers
from cyllama.server.config import ServerConfig
from cyllama.server.pictures_in import check_picture
from cyllama.server.problems import problem

__all__ = ["checked_media", "decoded"]

DATA = re.compile(r"data:(?:image|audio|video)/[\w.+-]+(?:;[\w.+-]+=[\w.+-]+)*;base64,", re.IGNORECASE)
# where the forms of requests have what upstream would open: key, and keys in what stands there
PLACES = {
    "image_url": ("url",),
    "input_audio": ("data", "url"),
    "source": ("data", "url"),
    "multimodal_data": (),
}
PICTURES = ("image_url", "source")
VIDEOS = ("input_video", "video_url")


def checked_media(body: dict[str, Any], config: ServerConfig) -> dict[str, Any]:
    """The same body, if all that it carries may go to the engine.

    Raises
    ------
    HTTPException
    """
    for _, item in containers(body):
        if isinstance(item, dict):
            for place in VIDEOS:
                if place in item:
                    raise problem(400, f"{place}: videos are not taken", param=place)
            for place, inner in PLACES.items():
                for text in _texts(item.get(place), inner):
                    data = decoded(text, place)
                    if place in PICTURES or not is_sound(data):
                        check_picture(data, config.limits.pixels, place)
    return body


def _texts(value: Any, inner: tuple[str, ...]) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (value[key] for key in inner if isinstance(value.get(key), str))
    elif isinstance(value, list):
        yield from (item for item in value if isinstance(item, str))


def is_sound(data: bytes) -> bool:
    """Whether upstream would read it as sound: WAV, MP3 or FLAC. What it does not know it gives to other programs."""
    wav = data[:4] == b"RIFF" and data[8:12] == b"WAVE"
    mp3 = data[:3] == b"ID3" or (data[:1] == b"\xff" and data[1:2] >= b"\xe0")
    return len(data) >= 12 and (wav or mp3 or data[:4] == b"fLaC")


def decoded(text: str, name: str) -> bytes:
    """The bytes of base64, with ``data:`` before it or not.

    Raises
    ------
    HTTPException
        It is something else: an address or a path is not opened.
    """
    match = DATA.match(text)
    try:
        return base64.b64decode(text[match.end() :] if match else text, validate=True)
    except (binascii.Error, ValueError):
        message = f"{name} is {text[:60]!r}, expected base64 or data:TYPE;base64,...: nothing is fetched or opened"
        raise problem(400, message, param=name) from None
