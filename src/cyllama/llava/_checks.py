"""Checks of encoded media and of parameters before the engine reads them."""

from __future__ import annotations

import io
import os
import shutil
import struct
from typing import Any, BinaryIO

from PIL import Image

from cyllama._native._gguf import GGUFContext
from cyllama.errors import AudioTooLongError, MediaError, UnsupportedError
from cyllama.llava.params import VideoParams
from cyllama.media.audio import AudioStream
from cyllama.media.encoded import is_audio_file
from cyllama.media.image_file import MAX_PIXELS, check_header, open_image

__all__ = ["check_encoded", "check_ffmpeg", "folder_bytes", "frame_width"]

MAX_SAMPLES = 1 << 28  # of audio at the projector's rate: 1 GiB
MEAN_OF_FEATURES, HEADS_OF_CODES = "a.gen.emb_mean", "a.gen.code.head.weight"
VIDEO_MARKS = ((4, b"ftyp"), (0, b"\x1a\x45\xdf\xa3"), (8, b"AVI "), (0, b"OggS"), (0, b"FLV"), (0, b"\x00\x00\x01"))


def _has(data: bytes, mark: tuple[int, bytes]) -> bool:
    at, text = mark
    return data[at : at + len(text)] == text


def check_encoded(source: bytes | str | os.PathLike[str], sample_rate: int | None) -> str:
    """Return the kind of a file by its header, as the engine does: ``"image"``, ``"audio"`` or ``"video"``.

    Parameters
    ----------
    source : bytes or path
        The content of the file, or its path.
    sample_rate : int or None
        The projector's rate in Hz; None if it does not accept audio.

    Raises
    ------
    ValueError
        The file is empty or too large.
    MediaError
        The header does not match the content.
    UnsupportedError
        The projector does not accept audio.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        size, name, content = len(source), "the data", bytes(source)
        head = content[:64]
    else:
        size, name, content = os.path.getsize(source), os.fspath(source), None
        with open(source, "rb") as file:
            head = file.read(64)
    if not size:
        raise ValueError(f"{name} is empty, expected an image, audio or a video")
    if is_audio_file(head):
        if sample_rate is None:
            raise UnsupportedError(f"{name} is audio, but the projector accepts only images")
        _check_audio(source if content is None else content, name, sample_rate)
        return "audio"
    with open(source, "rb") if content is None else io.BytesIO(content) as file:
        found = _image_format(file, name)
    if found is not None:
        return "video" if found == "WEBP" else "image"
    return "video" if any(_has(head, mark) for mark in VIDEO_MARKS) else "image"


def _image_format(file: BinaryIO, name: str) -> str | None:
    """Return the format of an image by its header; None if Pillow does not support it.

    Raises
    ------
    ValueError
        The image is too large.
    """
    check_header(file, name)
    try:
        with open_image(file) as image:
            (width, height), kind = image.size, image.format
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{name} has more than {MAX_PIXELS:,} pixels: {error}") from None
    except (OSError, SyntaxError, ValueError, struct.error):  # raised by Pillow for unknown formats
        return None
    if width * height > MAX_PIXELS:
        raise ValueError(f"{name} has {width}x{height} pixels, more than {MAX_PIXELS:,}")
    return kind


def _check_audio(source: Any, name: str, sample_rate: int) -> None:
    """Check the header of an audio file, by which the engine allocates memory."""
    head = source[: 1 << 16] if isinstance(source, bytes) else _first_bytes(source)
    size = len(source) if isinstance(source, bytes) else os.path.getsize(source)
    at = 12
    while _has(head, (0, b"RIFF")) and at + 8 <= len(head):
        kind, length = struct.unpack_from("<4sI", head, at)
        if kind == b"data" and length > size - at - 8:
            raise MediaError(f"{name} is truncated: {length} bytes of audio in the header, {size - at - 8} in the file")
        if kind == b"data":
            break
        at += 8 + length + length % 2
    most = MAX_SAMPLES // sample_rate
    try:
        AudioStream(source, max_seconds=most).duration  # noqa: B018  # decodes audio of unknown length
    except AudioTooLongError:
        raise ValueError(f"{name} is too long, expected at most {most} s") from None


def _first_bytes(path: Any) -> bytes:
    with open(path, "rb") as file:
        return file.read(1 << 16)


def folder_bytes(folder: Any) -> bytes:
    """Return the path of a folder as bytes for C.

    Raises
    ------
    NotADirectoryError
    """
    if not os.path.isdir(folder):
        raise NotADirectoryError(f"ffmpeg_bin_dir is {os.fspath(folder)!r}, expected a folder")
    return os.fsencode(os.fspath(folder))


def check_ffmpeg(params: VideoParams | None) -> None:
    """Check that ffmpeg and ffprobe are installed.

    Raises
    ------
    UnsupportedError
    """
    folder = None if params is None or params.ffmpeg_bin_dir is None else os.fspath(params.ffmpeg_bin_dir)
    missing = [program for program in ("ffmpeg", "ffprobe") if shutil.which(program, path=folder) is None]
    if missing:
        where = "PATH" if folder is None else folder
        raise UnsupportedError(
            f"videos and WebP need the program {' and '.join(missing)} in {where} (Debian: apt-get install ffmpeg)"
        )


def frame_width(path: str) -> int:
    """Return the number of codes or features of a frame of speech, from the file of a speech projector."""
    with GGUFContext.from_file(path) as file:
        shapes = {tensor.name: tensor.shape for tensor in file.tensors()}
    if MEAN_OF_FEATURES in shapes:
        return int(shapes[MEAN_OF_FEATURES][-1])
    return int(shapes[HEADS_OF_CODES][0]) + 1  # the first code is the language model's
