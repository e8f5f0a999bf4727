"""Who speaks: the channel of a recording with one speaker on each."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from cyllama.media.audio import AudioStream, RangeReader
from cyllama.whisper._segments import Segment

__all__ = ["channel_speakers"]

LOUDER = 1.1  # energy of the loudest channel divided by that of the next, as in whisper.cpp


def channel_speakers(audio: object, segments: Iterable[Segment], *, sample_rate: int | None = None) -> list[int | None]:
    """Return the channel with the most energy for each segment, such as of a telephone call with two channels.

    Parameters
    ----------
    audio : path, bytes, array, or (sample_rate, array)
        The recording of the segments, with two channels or more. It is decoded once for each channel.
    segments : iterable of Segment
        In order of time.
    sample_rate : int, optional
        Sample rate of an array in Hz; 16,000 by default.

    Returns
    -------
    list of (int or None)
        The number of the channel, from 0; None if no channel is 10% louder than the others.

    Raises
    ------
    TypeError
        `audio` is a file object, which can be read once only.
    ValueError
        The recording has one channel.
    MediaError
        The file is not audio.
    """
    if hasattr(audio, "read"):
        raise TypeError(f"audio is a {type(audio).__name__}, expected a path, bytes or an array")
    ranges = [(segment.start, segment.end) for segment in segments]
    channels = AudioStream(audio, sample_rate=sample_rate).channels
    if channels < 2:
        raise ValueError("audio has one channel, expected one for each speaker")
    energies = np.empty((channels, len(ranges)))
    for channel in range(channels):
        reader = RangeReader(AudioStream(audio, sample_rate=sample_rate, channel=channel))
        for i, (start, end) in enumerate(ranges):
            samples = reader.read(start, end)
            energies[channel, i] = np.mean(np.square(samples, dtype=np.float64)) if len(samples) else 0.0
    order = np.sort(energies, axis=0)
    clear = order[-1] > LOUDER * order[-2]
    return [int(channel) if sure else None for channel, sure in zip(energies.argmax(axis=0), clear, strict=True)]
