"""Conversion of audio to mono float32 samples of one rate, 16,000 Hz by default.

>>> from cyllama.media.audio import AudioStream, load_audio
>>> load_audio("talk.mp3")                               # doctest: +SKIP
array([...], dtype=float32)
>>> for start, samples in AudioStream("ten hours.flac"):  # doctest: +SKIP
...     print(start, len(samples) / 16_000)
"""

from __future__ import annotations

import copy
import math
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from cyllama._cancel import AnyCancel, Cancel, check_cancel, raise_if_cancelled
from cyllama.errors import AudioTooLongError
from cyllama.media._audio_sources import ArraySource, Source, open_encoded
from cyllama.media._samples import Samples, as_array, check_rate
from cyllama.media.paths import checked_path

__all__ = ["SAMPLE_RATE", "AudioStream", "Clips", "RangeReader", "load_audio", "parse_clips"]

SAMPLE_RATE = 16_000  # Hz, of speech models
WINDOW_SECONDS = 30.0
SEEK_SECONDS = 30  # a shorter gap between ranges is decoded
MARGIN_SECONDS = 1  # decoded before a clip, so that the resampler has settled; far longer than its filter

Clips = str | float | Iterable[float] | Iterable[tuple[float, float | None]]


class AudioStream:
    """Audio that is read, mixed down and resampled block by block; memory does not grow with its length.

    Parameters
    ----------
    audio : path, bytes, binary file object, array, or (sample_rate, array)
        A ``str`` or ``os.PathLike`` names a file. ``bytes``, ``bytearray`` and a ``memoryview`` of bytes are the
        content of one. A file object is read from its position to its end, and left open. WAV, FLAC, Ogg, MP3 and
        other formats of libsndfile; containers such as m4a, mp4 and webm with PyAV (``pip install av``).

        An array (ndarray, or anything with the buffer protocol or ``__array__``) has the shape (n,), (n, channels) or
        (channels, n): of two dimensions the shorter is the channels, of a square array the last is. Integers
        of 8, 16 and 32 bits are scaled by their range (unsigned ones are offset by half of it), floats are not
        scaled. Strides and byte order do not matter. It is not copied: change it only afterwards.

        Channels are averaged.
    sample_rate : int, optional
        Rate of an array in Hz; default: `target_rate`. A file contains its own.
    target_rate : int
        Rate of the samples that are read, in Hz.
    channel : int, optional
        Read one channel, from 0; default: the average of all.
    clip : see `parse_clips`, optional
        The ranges of seconds that iteration yields; default: all.
    allow_empty : bool
        Accept audio without samples.
    max_seconds : float, optional
        Largest length of the source; compared with the header, and while decoding with what was decoded.
    cancel : Cancel, optional
        Checked for each block of at most 4 s that is decoded.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError
        The path cannot be read.
    AudioTooLongError
        The source is longer than `max_seconds`; a ValueError. Also raised while reading.
    CancelledError
        Also raised while reading.
    MediaError
        The file is not audio, or needs PyAV.
    TypeError
        `audio` or its numbers have another type.
    ValueError
        No samples, an invalid rate or shape, a clip outside of the audio; while reading: a sample that is NaN,
        infinite or not scaled.

    Warns
    -----
    DamagedAudioWarning
        Once, while reading: the file is damaged or truncated, such as by a recorder without power. What can be decoded
        is read, also after the damage if PyAV is installed. To get an exception instead:
        ``warnings.simplefilter("error", DamagedAudioWarning)``.

    Notes
    -----
    A file stays open until the stream is dropped, so it may be renamed or removed.

    It can be read many times, and by several iterators at once. Thread safety: one thread at a time for each
    iterator. The GIL is released while decoding and resampling.
    """

    def __init__(
        self,
        audio: object,
        *,
        sample_rate: int | None = None,
        target_rate: int = SAMPLE_RATE,
        channel: int | None = None,
        clip: Clips | None = None,
        allow_empty: bool = False,
        max_seconds: float | None = None,
        cancel: Cancel | None = None,
    ) -> None:
        check_cancel(cancel)
        self.target_rate = check_rate(target_rate, "target_rate")
        self.max_seconds = None if max_seconds is None else _check_max_seconds(max_seconds)
        self._cancel = cancel
        if isinstance(audio, tuple):
            sample_rate, audio = _pair(audio, sample_rate)
        self._source = self._open(audio, sample_rate)
        if channel is not None and not 0 <= channel < self._source.channels:
            raise ValueError(f"channel is {channel!r}, but {self._source.name} has {self._source.channels}")
        self._source.channel = channel
        self._check(self._source.frames or 0)
        if not allow_empty and self._source.frames == 0:
            raise ValueError(f"{self._source.name} has no samples")
        self.clips = ((0.0, None),) if clip is None else parse_clips(clip, self.duration)

    @property
    def name(self) -> str:
        """The name of the source in messages."""
        return self._source.name

    @property
    def sample_rate(self) -> int:
        """The rate of the source in Hz; samples that are read have `target_rate`."""
        return self._source.rate

    @property
    def channels(self) -> int:
        """The number of channels of the source."""
        return self._source.channels

    @property
    def can_seek(self) -> bool:
        """Whether a range in the middle is read without decoding the audio before it."""
        return self._source.seeks

    @property
    def duration(self) -> float:
        """The length of the source in seconds. A file whose header does not contain it is decoded once."""
        if self._source.frames is None:
            self._source.frames = self._source.count(self._check)
        return self._source.frames / self._source.rate

    @property
    def warning(self) -> str | None:
        """Where the file is damaged or truncated, as `DamagedAudioWarning` says it; known after reading to the end."""
        return self._source.warning

    def with_cancel(self, cancel: Cancel | None) -> AudioStream:
        """Return a stream of the same source that `cancel` stops as well."""
        if cancel is None:
            return self
        stream = copy.copy(self)
        stream._cancel = AnyCancel(self._cancel, cancel)
        return stream

    def _check(self, frames: int) -> None:
        """Check the length of what was decoded, and whether to stop."""
        raise_if_cancelled(self._cancel, "decoding audio")
        if self.max_seconds is not None and frames > self.max_seconds * self._source.rate:
            raise AudioTooLongError(f"{self.name} is longer than {self.max_seconds:g} s (max_seconds)")

    def blocks(
        self, start: float = 0.0, end: float | None = None, *, seconds: float = WINDOW_SECONDS
    ) -> Iterator[Samples]:
        """Yield the samples of a range in blocks of one length.

        Parameters
        ----------
        start, end : float
            In seconds; `end` is the end of the audio by default.
        seconds : float
            The length of a block; the last may be shorter.

        Yields
        ------
        ndarray of float32
            Mono, `target_rate` Hz, shape (n,). Together exactly the samples of the whole between
            ``round(start * target_rate)`` and ``round(end * target_rate)``.
        """
        size = _block_size(seconds, self.target_rate)
        parts: list[Samples] = []
        have = 0
        for samples in self._samples(*_sample_range(start, end, self.target_rate)):
            while have + len(samples) >= size:
                cut = size - have
                parts.append(samples[:cut])
                yield _joined(parts)
                parts, have, samples = [], 0, samples[cut:]
            if len(samples):
                parts.append(samples)
                have += len(samples)
        if parts:
            yield _joined(parts)

    def read(self, start: float = 0.0, end: float | None = None) -> Samples:
        """Return the samples of a range as one array; see `blocks`."""
        return _joined(list(self._samples(*_sample_range(start, end, self.target_rate))))

    def __iter__(self) -> Iterator[tuple[float, Samples]]:
        """Yield (start in seconds, samples) for blocks of at most 30 s; none crosses the end of a clip."""
        reader = RangeReader(self)
        for start, end in self.clips:
            for i, samples in enumerate(reader.blocks(start, end)):
                yield start + i * WINDOW_SECONDS, samples

    def _open(self, audio: object, sample_rate: int | None) -> Source:
        if not _is_encoded(audio):
            return ArraySource(as_array(audio), self.target_rate if sample_rate is None else check_rate(sample_rate))
        if sample_rate is not None:
            raise ValueError(f"sample_rate is {sample_rate!r}, but only an array needs one; a file says its own")
        if isinstance(audio, (bytes, bytearray, memoryview)):
            return open_encoded(bytes(audio), f"the audio of {memoryview(audio).nbytes:,} bytes")
        if isinstance(audio, (str, os.PathLike)):
            path = checked_path(audio, "audio", "audio")
            if stat.S_ISREG(os.stat(path).st_mode):
                return open_encoded(path, repr(str(path)))
            with open(path, "rb") as pipe:
                return self._open_copy(pipe, repr(str(path)))
        return self._open_copy(audio, f"the file object {getattr(audio, 'name', '') or type(audio).__name__}")

    def _open_copy(self, file: Any, name: str) -> Source:
        """Open a file that can be read only once: a temporary copy without a name, which exists while it is open."""
        handle, temporary = tempfile.mkstemp(prefix="cyllama-audio-")
        try:
            with open(handle, "wb") as out:
                while data := _read(file):
                    out.write(data)
                    raise_if_cancelled(self._cancel, "reading audio")
            return open_encoded(Path(temporary), name)
        finally:
            os.unlink(temporary)

    def _samples(self, first: int, last: int | None) -> Iterator[Samples]:
        """`target_rate` Hz from sample `first` to `last`, in blocks of any length."""
        source, target = self._source, self.target_rate
        step = source.rate // math.gcd(source.rate, target)  # frames after which both rates are aligned again
        skip = max(0, first * source.rate // target - MARGIN_SECONDS * source.rate) // step * step
        position = skip * target // source.rate  # of the next sample, in the target's rate
        for samples in self._resampled(skip):
            start, position = position, position + len(samples)
            if last is not None and position >= last:
                samples = samples[: max(0, last - start)]
            samples = samples[max(0, first - start) :]
            if len(samples):
                yield samples
            if last is not None and position >= last:
                return

    def _resampled(self, first: int) -> Iterator[Samples]:
        source, position = self._source, first
        resampler = None
        if source.rate != self.target_rate:
            resampler = soxr.ResampleStream(source.rate, self.target_rate, 1, dtype="float32", quality="HQ")
        for block in source.blocks(first, self._check):
            position += len(block)
            yield block if resampler is None else resampler.resample_chunk(block)
        if position > first:
            source.end_at(position)
        if resampler is not None and position > first:
            yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


class RangeReader:
    """Reads ranges of a stream in the order of their starts, and decodes the audio only once.

    Without it, each range would be decoded from the start of a file that cannot be searched, such as Ogg or m4a.

    Parameters
    ----------
    stream : AudioStream
    """

    def __init__(self, stream: AudioStream) -> None:
        self._stream = stream
        self._samples: Iterator[Samples] | None = None
        self._kept = np.zeros(0, np.float32)
        self._first = 0  # index of the first sample of `_kept`

    def read(self, start: float, end: float) -> Samples:
        """Return the samples of a range as `AudioStream.read`; a start before the last one decodes again."""
        first, last = _sample_range(start, end, self._stream.target_rate)
        assert last is not None
        return self._read(first, last)

    def blocks(
        self, start: float = 0.0, end: float | None = None, *, seconds: float = WINDOW_SECONDS
    ) -> Iterator[Samples]:
        """Yield the samples of a range in blocks of one length, as `AudioStream.blocks`."""
        size = _block_size(seconds, self._stream.target_rate)
        first, last = _sample_range(start, end, self._stream.target_rate)
        while last is None or first < last:
            samples = self._read(first, first + size if last is None else min(last, first + size))
            if len(samples):
                yield samples
            if len(samples) < size:
                return
            first += size

    def _read(self, first: int, last: int) -> Samples:
        reached = self._first + len(self._kept)
        far = self._stream.can_seek and first > reached + SEEK_SECONDS * self._stream.target_rate
        if self._samples is None or first < self._first or far:
            self._samples = self._stream._samples(first, None)
            self._first, self._kept = first, self._kept[:0]
        skip = min(len(self._kept), first - self._first)
        self._first += skip
        parts = [self._kept[skip:]]
        position = self._first + len(parts[0])
        while position < last and (samples := next(self._samples, None)) is not None:
            position += len(samples)
            if position > first:
                parts.append(samples)
            else:
                self._first = position
        self._kept = np.concatenate(parts)
        skip = min(len(self._kept), first - self._first)
        self._first, self._kept = self._first + skip, self._kept[skip:]
        return self._kept[: last - self._first].copy()


def load_audio(
    audio: object,
    *,
    sample_rate: int | None = None,
    target_rate: int = SAMPLE_RATE,
    clip: Clips | None = None,
    allow_empty: bool = False,
    max_seconds: float | None = None,
    cancel: Cancel | None = None,
) -> Samples:
    """Convert audio to mono float32 samples of one rate, 16,000 Hz by default; several clips are concatenated.

    The other parameters and errors are those of `AudioStream`.

    Parameters
    ----------
    max_seconds : float, optional
        Reject longer audio; no more than that is decoded, even if the header is wrong. With `clip`, the limit of all
        clips together.

    Returns
    -------
    ndarray of float32
        Shape (n,). Treat it as read-only: it may be the array that was passed.

    Raises
    ------
    AudioTooLongError
        The audio is longer than `max_seconds`; a ValueError.
    """
    stream = AudioStream(
        audio,
        sample_rate=sample_rate,
        target_rate=target_rate,
        clip=clip,
        allow_empty=allow_empty,
        max_seconds=max_seconds if clip is None else None,
        cancel=cancel,
    )
    most = math.inf if max_seconds is None else max_seconds * target_rate
    parts, n = [], 0
    reader = RangeReader(stream)
    for start, end in stream.clips:
        one_clip = stream._samples(*_sample_range(start, end, target_rate))  # an array is not copied
        for samples in one_clip if len(stream.clips) == 1 else reader.blocks(start, end):
            parts.append(samples)
            n += len(samples)
            if n > most:
                raise AudioTooLongError(f"{stream.name} is longer than {max_seconds:g} s (max_seconds)")
    return _joined(parts)


def parse_clips(clips: Clips, duration: float | None = None) -> tuple[tuple[float, float | None], ...]:
    """Return ranges of seconds as pairs of start and end.

    Parameters
    ----------
    clips : str, float, or iterable of float or of pairs
        ``"0,10.5,60"``, ``[0, 10.5, 60]`` or ``[(0, 10.5), (60, None)]``: starts and ends in turn, increasing. The last
        end may be missing: the end of the audio.
    duration : float, optional
        The length of the audio, if it is known. Later ends are the end of the audio.

    Raises
    ------
    TypeError
        `clips` has another type.
    ValueError
        A number is not finite, negative, not in order, or a clip starts after the end.
    """
    times = _times(clips)
    if len(times) % 2:
        times.append(None)
    before = 0.0
    for i, time in enumerate(times):
        if time is None and i == len(times) - 1:
            continue
        is_end = i % 2 == 1
        if time is None or not math.isfinite(time) or time < before or (is_end and time == before):
            raise ValueError(f"clip is {clips!r}, expected seconds that increase: start, end, start, end, ...")
        before = time
    found = list(zip(times[::2], times[1::2], strict=True))
    if not found:
        raise ValueError(f"clip is {clips!r}, expected at least one range of seconds")
    start = found[-1][0]
    if duration is not None and start is not None and start >= duration:
        raise ValueError(f"clip is {clips!r}, but the audio ends after {duration:.2f} s")
    return tuple((float(start or 0.0), end) for start, end in found)


def _times(clips: Any) -> list[float | None]:
    try:
        if isinstance(clips, str):
            return [float(word) for word in clips.split(",")]
        if isinstance(clips, Real):
            return [float(clips)]
        found: list[float | None] = []
        for item in clips:
            pair = (item,) if isinstance(item, Real) or item is None else tuple(item)
            if len(pair) != 2 and not isinstance(item, Real):
                raise TypeError
            found += [None if time is None else float(time) for time in pair]
        return found
    except (TypeError, ValueError):
        raise TypeError(f"clip is {clips!r}, expected seconds such as [0, 10.5], '0,10.5' or [(0, 10.5)]") from None


def _pair(audio: tuple[object, ...], sample_rate: int | None) -> tuple[int, object]:
    if len(audio) != 2 or hasattr(audio[0], "__len__"):
        kinds = ", ".join(type(part).__name__ for part in audio)
        raise TypeError(f"audio is a tuple of ({kinds}), expected (sample_rate, array)")
    if sample_rate is not None:
        raise ValueError(f"sample_rate is {sample_rate!r}, but audio is (sample_rate, array) with {audio[0]!r}")
    return check_rate(audio[0]), audio[1]


def _is_encoded(audio: object) -> bool:
    """Return whether the argument is an audio file rather than samples."""
    if isinstance(audio, memoryview):
        return audio.format in ("B", "b", "c") and audio.ndim == 1
    return isinstance(audio, (str, bytes, bytearray, os.PathLike)) or callable(getattr(audio, "read", None))


def _read(file: Any) -> bytes:
    data = file.read(1 << 20)
    if not isinstance(data, (bytes, bytearray, memoryview)):
        kind = type(data).__name__
        raise TypeError(f"the file object gave {kind}, expected bytes; open it in binary mode ('rb')")
    return bytes(data)


def _check_max_seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"max_seconds is {value!r}, expected a number of seconds")
    if not float(value) >= 0:  # NaN as well
        raise ValueError(f"max_seconds is {value!r}, expected at least 0")
    return float(value)


def _sample_range(start: float, end: float | None, rate: int) -> tuple[int, int | None]:
    if not (math.isfinite(start) and start >= 0):
        raise ValueError(f"start is {start!r}, expected seconds, at least 0")
    if end is not None and not end >= start:
        raise ValueError(f"end is {end!r}, expected seconds after the start at {start!r}")
    last = None if end is None or math.isinf(end) else round(end * rate)
    return round(start * rate), last


def _block_size(seconds: float, rate: int) -> int:
    size = round(seconds * rate)
    if size < 1:
        raise ValueError(f"seconds is {seconds!r}, expected the length of a block, such as 30")
    return size


def _joined(parts: list[Samples]) -> Samples:
    if len(parts) == 1:
        return np.ascontiguousarray(parts[0])
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)
