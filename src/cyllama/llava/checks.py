"""What is looked at before the engine sees it: encoded media and videos."""

from __future__ import annotations

import io
import math
import os
import shutil
import struct
from typing import Any

from PIL import Image

from cyllama.errors import MediaError, ModelLoadError, UnsupportedError
from cyllama.llama._gguf import GGUFContext
from cyllama.llava.params import VideoParams
from cyllama.media.audio import AudioStream
from cyllama.media.image import MAX_PIXELS

__all__ = ["check_encoded", "check_video_params", "find_ffmpeg", "folder_bytes", "frame_width", "is_projector"]

MAX_SAMPLES = 1 << 28  # of a sound, at the projector's rate: 1 GiB
MAX_FPS = 1000.0
MEAN_OF_FEATURES, HEADS_OF_CODES = "a.gen.emb_mean", "a.gen.code.head.weight"
VIDEO_MARKS = ((4, b"ftyp"), (0, b"\x1a\x45\xdf\xa3"), (8, b"AVI "), (0, b"OggS"), (0, b"FLV"), (0, b"\x00\x00\x01"))


def _has(data: bytes, mark: tuple[int, bytes]) -> bool:
    at, text = mark
    return data[at : at + len(text)] == text


def _is_audio(data: bytes) -> bool:
    """As the engine tells a sound from a picture."""
    return (
        _has(data, (0, b"fLaC"))
        or (_has(data, (0, b"RIFF")) and _has(data, (8, b"WAVE")))
        or _has(data, (0, b"ID3"))
        or (len(data) > 1 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0)
    )


def check_encoded(source: bytes | str | os.PathLike[str], sample_rate: int | None) -> str:
    """What the engine would take a file for, by its header: ``"image"``, ``"audio"`` or ``"video"``.

    Parameters
    ----------
    source : bytes or path
        Its content, or where it is.
    sample_rate : int or None
        The rate that a sound is wanted in, in Hz; None where no sound is taken.

    Raises
    ------
    ValueError
        It is empty or too large.
    MediaError
        Its header does not fit what follows.
    UnsupportedError
        A sound where none is taken.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        size, name, content = len(source), "the data", bytes(source)
        head = content[:64]
    else:
        size, name, content = os.path.getsize(source), os.fspath(source), None
        with open(source, "rb") as file:
            head = file.read(64)
    if not size:
        raise ValueError(f"{name} is empty, expected a picture, a sound or a video")
    if len(head) >= 12 and _is_audio(head):
        if sample_rate is None:
            raise UnsupportedError(f"{name} is a sound, but the projector takes pictures only")
        _check_sound(source if content is None else content, name, sample_rate)
        return "audio"
    found = _picture_of(source if content is None else io.BytesIO(content), name)
    if found is not None:
        return "video" if found == "WEBP" else "image"
    return "video" if any(_has(head, mark) for mark in VIDEO_MARKS) else "image"


def _picture_of(source: Any, name: str) -> str | None:
    """The format of a picture, by its header; None where Pillow knows none.

    Raises
    ------
    ValueError
        It is too large.
    """
    try:
        with Image.open(source) as image:
            (width, height), kind = image.size, image.format
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{name} has more than {MAX_PIXELS:,} pixels, the most that is taken: {error}") from None
    except (OSError, SyntaxError, ValueError, struct.error):  # what Pillow raises for what it does not know
        return None
    if width * height > MAX_PIXELS:
        raise ValueError(f"{name} has {width}x{height} pixels, more than {MAX_PIXELS:,}, the most that is taken")
    return kind


def _check_sound(source: Any, name: str, sample_rate: int) -> None:
    """The engine believes the header and takes memory for what it says."""
    head = source[: 1 << 16] if isinstance(source, bytes) else _first_bytes(source)
    size = len(source) if isinstance(source, bytes) else os.path.getsize(source)
    at = 12
    while _has(head, (0, b"RIFF")) and at + 8 <= len(head):
        kind, length = struct.unpack_from("<4sI", head, at)
        if kind == b"data" and length > size - at - 8:
            raise MediaError(f"{name} is truncated: {length} bytes of sound are announced, {size - at - 8} are there")
        if kind == b"data":
            break
        at += 8 + length + length % 2
    seconds = AudioStream(source).duration
    if seconds * sample_rate > MAX_SAMPLES:
        raise ValueError(f"{name} lasts {seconds:.0f} s, at most {MAX_SAMPLES // sample_rate} s are taken")


def _first_bytes(path: Any) -> bytes:
    with open(path, "rb") as file:
        return file.read(1 << 16)


def check_video_params(params: Any) -> None:
    """The fields have their types and ranges; None means all defaults.

    Raises
    ------
    TypeError, ValueError
    """
    if params is None:
        return
    if not isinstance(params, VideoParams):
        raise TypeError(f"video is {params!r}, expected VideoParams or None")
    fps, interval = params.fps_target, params.timestamp_interval_ms
    if fps is not None and not (isinstance(fps, int | float) and math.isfinite(fps) and fps <= MAX_FPS):
        raise ValueError(f"fps_target is {fps!r}, expected frames for each second, at most {MAX_FPS:g}")
    if interval is not None and (
        not isinstance(interval, int) or isinstance(interval, bool) or abs(interval) > 1 << 53
    ):
        raise ValueError(f"timestamp_interval_ms is {interval!r}, expected milliseconds")
    if params.ffmpeg_bin_dir is not None:
        folder_bytes(params.ffmpeg_bin_dir)


def folder_bytes(folder: Any) -> bytes:
    """The path of a folder as bytes for C.

    Raises
    ------
    NotADirectoryError
    """
    if not os.path.isdir(folder):
        raise NotADirectoryError(f"ffmpeg_bin_dir is {os.fspath(folder)!r}, expected a folder")
    return os.fsencode(os.fspath(folder))


def find_ffmpeg(params: VideoParams | None) -> None:
    """ffmpeg and ffprobe are there.

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


def is_projector(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a projector, by its metadata; False for what is no GGUF file."""
    if not os.path.isfile(path):
        return False
    try:
        with GGUFContext.from_file(path) as file:
            return bool(file.get("general.architecture") == "clip")
    except ModelLoadError:
        return False


def frame_width(path: str) -> int:
    """How many codes or features a frame of speech has, by the file of a projector that speaks."""
    with GGUFContext.from_file(path) as file:
        shapes = {tensor.name: tensor.shape for tensor in file.tensors()}
    if MEAN_OF_FEATURES in shapes:
        return int(shapes[MEAN_OF_FEATURES][-1])
    return int(shapes[HEADS_OF_CODES][0]) + 1  # the first code is the language model's
