"""Ranges of audio that are louder than its background, to find pauses without a model."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cyllama.media._samples import Samples
from cyllama.media.audio import SAMPLE_RATE
from cyllama.whisper._chunking import Chunk

__all__ = ["VoiceRange", "find_voice", "voice_in_chunk"]

VoiceRange = tuple[float, float]  # start and end in seconds of the chunk

HOP = SAMPLE_RATE // 100  # frames of 10 ms
SMOOTH_FRAMES = 3
BLOCK_FRAMES = 500  # the level of the background is taken anew every 5 s, from the 35 s around
CONTEXT_FRAMES = 1500
RANGE_DB = 50.0  # what is further below the speech is silence, also if the background is digital silence
QUIETER_SPEAKER_DB = 15.0  # below the loudest speech of the chunk
PART_OF_RANGE, MIN_DB = 0.25, 4.0  # of the threshold above the background
SLIVER_SECONDS = 0.1  # of voice that goes on where the chunk leaves audio out
BRIDGED_FRAMES, SHORTEST_FRAMES, PADDED_FRAMES = 20, 6, 2


def find_voice(samples: Samples) -> list[VoiceRange]:
    """Return the ranges that are louder than the background.

    Parameters
    ----------
    samples : ndarray of float32, shape (n,)
        Mono, 16,000 Hz.

    Returns
    -------
    list of (float, float)
        Start and end in seconds, in order. Pauses of less than 200 ms are part of a range. Everything, if the level
        does not change.
    """
    n_frames = len(samples) // HOP
    if n_frames == 0:
        return [(0.0, len(samples) / SAMPLE_RATE)] if len(samples) else []
    frames = np.asarray(samples[: n_frames * HOP]).reshape(n_frames, HOP)
    power = np.einsum("ij,ij->i", frames, frames, dtype=np.float64) / HOP
    power = np.convolve(power, np.full(SMOOTH_FRAMES, 1 / SMOOTH_FRAMES), "same")
    level = 10 * np.log10(power + 1e-12)
    return [
        (first / 100, min(last / 100, len(samples) / SAMPLE_RATE)) for first, last in _ranges(level > _threshold(level))
    ]


def _threshold(level: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the threshold of each frame, between the background and the speech around it."""
    loudest = float(np.percentile(level, 95))
    found = np.empty_like(level)
    for first in range(0, len(level), BLOCK_FRAMES):
        around = level[max(0, first - CONTEXT_FRAMES) : first + BLOCK_FRAMES + CONTEXT_FRAMES]
        background, speech = (float(value) for value in np.percentile(around, (10, 95)))
        speech = max(speech, loudest - QUIETER_SPEAKER_DB)
        background = max(background, speech - RANGE_DB)
        if speech - background < 2 * MIN_DB:
            found[first : first + BLOCK_FRAMES] = -np.inf  # one level: noise, music or speech without a pause
        else:
            found[first : first + BLOCK_FRAMES] = background + max(MIN_DB, PART_OF_RANGE * (speech - background))
    return found


def _ranges(loud: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return first and last frame of each range of loud frames, without short pauses and short noises."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], loud, [False]])))
    joined: list[tuple[int, int]] = []
    for first, last in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if joined and first - joined[-1][1] < BRIDGED_FRAMES:
            joined[-1] = (joined[-1][0], last)
        else:
            joined.append((first, last))
    return [
        (max(0, first - PADDED_FRAMES), last + PADDED_FRAMES)
        for first, last in joined
        if last - first >= SHORTEST_FRAMES
    ]


def voice_in_chunk(chunk: Chunk) -> list[VoiceRange]:
    """Return the voice of a chunk in its own seconds; no range goes over audio that the chunk leaves out."""
    found: list[VoiceRange] = []
    for start, end in find_voice(chunk.samples):
        parts = [(max(start, span.begin), min(end, span.end)) for span in chunk.spans]
        found += [part for part in parts if part[1] - part[0] > min(SLIVER_SECONDS, end - start) / 2]
    return found
