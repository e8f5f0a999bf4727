"""Write videos: gif and webp with Pillow, mp4 with FFmpeg (``pip install av``), or a folder of images."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cyllama._native.files import final_path, write_file
from cyllama._paths import expanded
from cyllama.errors import MediaError, UnsupportedError
from cyllama.media.image import Pixels, to_pixels_list

__all__ = ["check_video_path", "checked_fps", "save_video"]

MAX_FPS = 1000
# Time units per second of a format.
TICKS = {".gif": 100, ".webp": 1000}
ENCODERS = ("libx264", "libopenh264", "mpeg4")


def save_video(frames: Any, path: str | os.PathLike[str], *, fps: int = 16) -> Path:
    """Write frames as a video.

    Parameters
    ----------
    frames : sequence of images, or array of shape (frames, height, width, 3)
        Images of one size, in any form that `cyllama.sd.img2img` accepts.
    path : path
        A ``.gif``, ``.webp`` (lossless) or ``.mp4`` file; without a suffix, a folder for ``00001.png`` and so on, which
        is created if necessary.
    fps : int
        Frames per second, 1 to 1000; 1 to 100 for gif.

    Returns
    -------
    pathlib.Path
        `path`.

    Raises
    ------
    TypeError, ValueError
        No frames, frames of several sizes, or an unknown suffix.
    UnsupportedError
        mp4 without PyAV.
    OSError
    """
    fps = checked_fps(fps)
    images = to_pixels_list(frames, "frames")
    sizes = {image.shape[1::-1] for image in images}
    if len(sizes) != 1:
        found = ", ".join(f"{width}x{height}" for width, height in sorted(sizes)) or "none"
        raise ValueError(f"frames have the sizes {found}, expected one size")
    target = expanded(path)
    suffix = check_video_path(target)
    if not suffix:
        return _write_folder(images, target)
    if fps > TICKS.get(suffix, MAX_FPS):
        raise ValueError(f"fps is {fps}, expected 1 to {TICKS[suffix]} for {suffix}")
    final_path(target)  # raises before the frames are encoded
    out = io.BytesIO()
    if suffix == ".mp4":
        _write_mp4(images, out, fps)
    else:
        _write_animation(images, out, suffix, fps)
    write_file(target, out.getbuffer())
    return target


def checked_fps(fps: Any) -> int:
    """Check and return a number of frames per second, 1 to 1000.

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
    """Return the lower-case suffix of a video file; empty for a folder.

    Raises
    ------
    ValueError
        The suffix is not that of a supported format.
    UnsupportedError
        mp4 without PyAV.
    """
    suffix = os.path.splitext(os.fspath(path))[1].casefold()
    if suffix not in ("", *TICKS, ".mp4"):
        raise ValueError(f"path ends in {suffix!r}, expected .gif, .webp, .mp4 or a folder")
    if suffix == ".mp4":
        _av()
    return suffix


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        raise UnsupportedError("mp4 needs PyAV: pip install av; gif and webp do not need it") from error
    return av


def _write_folder(images: Sequence[Pixels], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        out = io.BytesIO()
        Image.fromarray(image).save(out, "PNG")
        write_file(folder / f"{i + 1:05d}.png", out.getbuffer())
    return folder


def _write_animation(images: Sequence[Pixels], out: io.BytesIO, suffix: str, fps: int) -> None:
    ticks = TICKS[suffix]
    ends = [round(ticks * (i + 1) / fps) for i in range(len(images))]
    # differences of rounded end times, so that rounding errors do not add up
    durations = [1000 // ticks * (end - begin) for begin, end in zip([0, *ends], ends, strict=False)]
    first, *rest = [Image.fromarray(image) for image in images]
    more: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {"optimize": False}
    first.save(out, suffix[1:], save_all=True, append_images=rest, duration=durations, loop=0, **more)


def _write_mp4(images: Sequence[Pixels], out: io.BytesIO, fps: int) -> None:
    av = _av()
    height, width = (side + side % 2 for side in images[0].shape[:2])  # yuv420p needs even sides
    encoder = next((name for name in ENCODERS if name in av.codecs_available), None)
    if encoder is None:
        raise UnsupportedError(f"this PyAV has none of the encoders {', '.join(ENCODERS)}")
    try:
        with av.open(out, "w", format="mp4") as container:
            stream: Any = container.add_stream(encoder, rate=Fraction(fps))
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for image in images:
                rows, columns = image.shape[:2]
                even = np.pad(image, ((0, height - rows), (0, width - columns), (0, 0)), mode="edge")
                container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
            container.mux(stream.encode())
    except av.FFmpegError as error:
        raise MediaError(f"the video cannot be encoded: {error}") from error
