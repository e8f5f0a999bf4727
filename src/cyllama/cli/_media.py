"""Pictures and sound of a command line: read at once, so that what is wrong with a file is said when it is named."""

from __future__ import annotations

import argparse
import base64
import mimetypes
from pathlib import Path
from typing import Any

__all__ = ["add_media", "check_media", "media_parts", "picture_part", "sound_part"]

KINDS = {"vision": "pictures", "audio": "sound"}


def add_media(parser: argparse.ArgumentParser) -> None:
    """Declare ``--image`` and ``--audio``, each as often as wanted."""
    parser.add_argument("--image", action="append", default=[], metavar="FILE",
                        help="a picture for the question; may be given several times")  # fmt: skip
    parser.add_argument("--audio", action="append", default=[], metavar="FILE",
                        help="a sound for the question; may be given several times")  # fmt: skip


def check_media(llm: Any, kind: str) -> None:
    """See that the model takes ``"vision"`` or ``"audio"``.

    Raises
    ------
    UnsupportedError
    """
    from cyllama.errors import UnsupportedError

    if llm.supports(kind):
        return
    others = [name for name in KINDS if llm.supports(name)]
    if others:
        raise UnsupportedError(f"the projector takes {KINDS[others[0]]} alone, no {KINDS[kind]}")
    raise UnsupportedError(f"the model takes no {KINDS[kind]}: give its projector with --mmproj")


def media_parts(llm: Any, images: list[str], audio: list[str]) -> list[dict[str, Any]]:
    """The parts of a message with these files, pictures first."""
    return [*(picture_part(llm, path) for path in images), *(sound_part(llm, path) for path in audio)]


def picture_part(llm: Any, path: str) -> dict[str, Any]:
    """The part of a message with a picture.

    Raises
    ------
    UnsupportedError, OSError, ValueError, MediaError
        The model takes none, or the file is none.
    """
    from cyllama.media.image import to_pixels
    from cyllama.media.paths import checked_path

    check_media(llm, "vision")
    data = checked_path(path, "the picture", "picture").read_bytes()
    to_pixels(data, path)
    kind = mimetypes.guess_type(path)[0] or "image/unknown"
    return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{base64.b64encode(data).decode()}"}}


def sound_part(llm: Any, path: str) -> dict[str, Any]:
    """The part of a message with a sound; errors as of `picture_part`."""
    from cyllama.media.audio import AudioStream
    from cyllama.media.paths import checked_path

    check_media(llm, "audio")
    file = checked_path(path, "the sound", "sound")
    AudioStream(file)
    data = base64.b64encode(file.read_bytes()).decode()
    return {"type": "input_audio", "input_audio": {"data": data, "format": Path(path).suffix.removeprefix(".")}}
