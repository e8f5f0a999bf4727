"""Images and audio in requests to language models: base64 only, and no larger than allowed."""

from __future__ import annotations

from typing import Any

from cyllama.media.encoded import is_audio_file
from cyllama.server.config import ServerConfig
from cyllama.server.http.body_limits import MEDIA, containers
from cyllama.server.http.errors import http_error
from cyllama.server.received_images import check_image, decode_text

__all__ = ["decode_media"]

IMAGES = ("image_url", "source")
VIDEOS = ("input_video", "video_url")


def decode_media(body: dict[str, Any], config: ServerConfig) -> None:
    """Replace the base64 of all media in a request by bytes, and check the sizes of images by their headers.

    Raises
    ------
    HTTPException
        A value is not base64 (URLs and paths are not opened), not an image, or too large; or it is a video.
    """
    for _, item in containers(body):
        if not isinstance(item, dict):
            continue
        for place in VIDEOS:
            if place in item:
                raise http_error(400, f"{place} is a video, expected images", param=place)
        for place, keys in MEDIA.items():
            value = item.get(place)
            if isinstance(value, str):
                item[place] = _decoded(value, place, config)
            elif isinstance(value, dict):
                value |= {k: _decoded(value[k], place, config) for k in keys if isinstance(value.get(k), str)}
            elif isinstance(value, list):
                value[:] = [_decoded(text, place, config) if isinstance(text, str) else text for text in value]


def _decoded(text: str, place: str, config: ServerConfig) -> bytes:
    data = decode_text(text, place)
    if place in IMAGES or not is_audio_file(data[:12]):
        check_image(data, config.limits.received_pixels, place)
    return data
