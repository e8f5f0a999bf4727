"""Videos as files: gif and webp by Pillow, mp4 by FFmpeg (``pip install av``), or a folder of pictures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cyllama._native.files import atomic_path
from cyllama.errors import MediaError, UnsupportedError
from cyllama.media.image import Pixels, to_pixels_list

__all__ = ["check_video_path", "checked_fps", "save_video"]

MAX_FPS = 1000
# Smallest part of a second that the format can name.
TICKS = {".gif": 100, ".webp": 1000}
ENCODERS = ("libx264", "libopenh264", "mpeg4")


def save_video(frames: Any, path: str | os.PathLike[str], *, fps: int = 16) -> Path:
    """Write frames as a video.

    Parameters
    ----------
    frames : sequence of pictures, or array of shape (frames, height, width, 3)
        All of one size; anything that `cyllama.sd.img2img` takes as a picture.
    path : path
        ``.gif``, ``.webp`` (lossless) or ``.mp4``; without an ending, a folder for ``00001.png`` and so on, which is
        made if it is missing.
    fps : int
        Frames of a second, 1 to 1000; 1 to 100 for gif.

    Returns
    -------
    pathlib.Path
        `path`.

    Raises
    ------
    TypeError, ValueError
        No frames, frames of several sizes, or another ending.
    UnsupportedError
        mp4 without PyAV.
    OSError
    """
    fps = checked_fps(fps)
    pictures = to_pixels_list(frames, "frames")
    sizes = {picture.shape[1::-1] for picture in pictures}
    if len(sizes) != 1:
        found = ", ".join(f"{width}x{height}" for width, height in sorted(sizes)) or "none"
        raise ValueError(f"frames have the sizes {found}, expected one size")
    target = Path(path)
    ending = check_video_path(target)
    if not ending:
        return _write_folder(pictures, target)
    if fps > TICKS.get(ending, MAX_FPS):
        raise ValueError(f"fps is {fps}, expected 1 to {TICKS[ending]} for {ending}")
    with atomic_path(target) as temporary:
        if ending == ".mp4":
            _write_mp4(pictures, temporary, fps)
        else:
            _write_animation(pictures, temporary, ending, fps)
    return target


def checked_fps(fps: Any) -> int:
    """Frames of a second, 1 to 1000.

    Raises
    ------
    TypeError, ValueError
    """
    if isinstance(fps, bool) or not hasattr(fps, "__index__"):
        raise TypeError(f"fps is {fps!r}, expected an integer")
    if not 1 <= fps <= MAX_FPS:
        raise ValueError(f"fps is {fps}, expected 1 to {MAX_FPS}")
    return int(fps)


def check_video_path(path: str | os.PathLike[str]) -> str:
    """The ending of a file that a video can be written to, in small letters; empty for a folder.

    Raises
    ------
    ValueError
        There is no such kind of video.
    UnsupportedError
        mp4 without PyAV.
    """
    ending = os.path.splitext(os.fspath(path))[1].casefold()
    if ending not in ("", *TICKS, ".mp4"):
        raise ValueError(f"path ends in {ending!r}, expected .gif, .webp, .mp4 or a folder")
    if ending == ".mp4":
        _av()
    return ending


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise UnsupportedError("mp4 needs PyAV: pip install av; gif and webp do not") from error
    return av


def _write_folder(pictures: Sequence[Pixels], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, picture in enumerate(pictures):
        with atomic_path(folder / f"{i + 1:05d}.png") as temporary:
            Image.fromarray(picture).save(temporary, "PNG")
    return folder


def _write_animation(pictures: Sequence[Pixels], path: str, ending: str, fps: int) -> None:
    ticks = TICKS[ending]
    ends = [round(ticks * (i + 1) / fps) for i in range(len(pictures))]
    # by the ends of the frames, so that rounding does not add up
    durations = [1000 // ticks * (end - begin) for begin, end in zip([0, *ends], ends, strict=False)]
    first, *rest = [Image.fromarray(picture) for picture in pictures]
    more: dict[str, Any] = {"lossless": True} if ending == ".webp" else {"optimize": False}
    first.save(path, ending[1:], save_all=True, append_images=rest, duration=durations, loop=0, **more)


def _write_mp4(pictures: Sequence[Pixels], path: str, fps: int) -> None:
    av = _av()
    height, width = (side + side % 2 for side in pictures[0].shape[:2])  # the format halves the colours
    encoder = next((name for name in ENCODERS if name in av.codecs_available), None)
    if encoder is None:
        raise UnsupportedError(f"this PyAV has none of the encoders {', '.join(ENCODERS)}")
    try:
        with av.open(path, "w", format="mp4") as container:
            stream: Any = container.add_stream(encoder, rate=Fraction(fps))
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for picture in pictures:
                rows, columns = picture.shape[:2]
                even = np.pad(picture, ((0, height - rows), (0, width - columns), (0, 0)), mode="edge")
                container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
            container.mux(stream.encode())
    except av.FFmpegError as error:
        raise MediaError(f"the video cannot be encoded: {error}") from error
