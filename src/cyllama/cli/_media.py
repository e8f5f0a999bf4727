"""Images and audio files of a command line, which are checked before the request."""

from __future__ import annotations

import argparse
import base64
import mimetypes
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from cyllama.llama import LLM

__all__ = ["Modality", "add_media", "audio_part", "check_media", "image_part", "media_parts"]

Modality = Literal["vision", "audio"]

MODALITIES: dict[Modality, str] = {"vision": "images", "audio": "audio"}


def add_media(parser: argparse.ArgumentParser) -> None:
    """Declare the repeatable options ``--image`` and ``--audio``."""
    parser.add_argument("--image", action="append", default=[], metavar="FILE",
                        help="image for the question; repeatable")  # fmt: skip
    parser.add_argument("--audio", action="append", default=[], metavar="FILE",
                        help="audio file for the question; repeatable")  # fmt: skip


def check_media(llm: LLM, modality: Modality) -> None:
    """Check that the model supports a modality.

    Raises
    ------
    UnsupportedError
    """
    from cyllama.errors import UnsupportedError

    if llm.supports(modality):
        return
    others = [name for name in MODALITIES if llm.supports(name)]
    if others:
        raise UnsupportedError(f"the projector supports {MODALITIES[others[0]]}, not {MODALITIES[modality]}")
    raise UnsupportedError(f"the model does not support {MODALITIES[modality]}: give its projector with --mmproj")


def media_parts(llm: LLM, images: list[str], audio: list[str]) -> list[dict[str, Any]]:
    """Return the parts of a message for files; errors as of `image_part`."""
    return [*(image_part(llm, path) for path in images), *(audio_part(llm, path) for path in audio)]


def image_part(llm: LLM, path: str) -> dict[str, Any]:
    """Return the part of a message for an image file.

    Raises
    ------
    UnsupportedError, OSError, ValueError, MediaError
        The model does not support images, or the file is not an image.
    """
    from cyllama.media.image import to_pixels
    from cyllama.media.paths import checked_path

    check_media(llm, "vision")
    data = checked_path(path, "the image", "image").read_bytes()
    to_pixels(data, path)
    kind = mimetypes.guess_type(path)[0] or "image/unknown"
    return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{base64.b64encode(data).decode()}"}}


def audio_part(llm: LLM, path: str) -> dict[str, Any]:
    """Return the part of a message for an audio file; errors as of `image_part`."""
    from cyllama.media.audio import AudioStream
    from cyllama.media.paths import checked_path

    check_media(llm, "audio")
    file = checked_path(path, "the audio", "audio")
    AudioStream(file)
    data = base64.b64encode(file.read_bytes()).decode()
    return {"type": "input_audio", "input_audio": {"data": data, "format": Path(path).suffix.removeprefix(".")}}
