"""Audio files that FFmpeg writes, for the tests."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

__all__ = ["container"]


def container(
    path: Path, codec: str, samples: np.ndarray, rate: int, video: bool = False, options: dict[str, str] | None = None
) -> Path:
    """Write a file with FFmpeg: `samples` on both channels, and optionally a video stream."""
    with av.open(str(path), "w", options=options or {}) as out:
        video_stream = out.add_stream("mpeg4", rate=10) if video else None
        stream = out.add_stream(codec, rate=rate, layout="stereo") if codec else None
        if video_stream is not None:
            video_stream.width = video_stream.height = 64
            frames = [av.VideoFrame.from_ndarray(np.full((64, 64, 3), i * 20, np.uint8)) for i in range(10)]
            for video_frame in [*frames, None]:
                out.mux(video_stream.encode(video_frame))
        if stream is not None:
            resampler = av.AudioResampler(stream.codec_context.format, "stereo", rate, frame_size=1024)
            frame = av.AudioFrame.from_ndarray(np.stack([samples, samples]), format="fltp", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
            for packet_frame in [*resampler.resample(frame), *resampler.resample(None), None]:
                out.mux(stream.encode(packet_frame))
    return path
