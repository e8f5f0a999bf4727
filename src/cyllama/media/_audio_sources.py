"""Sources of audio: an array, a file that libsndfile reads, or a container that FFmpeg reads.

A source has a rate and a length, and yields mono blocks from any frame on. Only the current block is in memory.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import soundfile

from cyllama.errors import MediaError
from cyllama.media._samples import MAX_CHANNELS, MAX_RATE, Array, Samples, check_samples, to_mono

__all__ = ["ArraySource", "Check", "Source", "open_encoded"]

Check = Callable[[int], None]
"""Called with the number of frames decoded so far; an exception stops the decoding."""

BLOCK_SECONDS, BLOCK_SAMPLES = 4, 1 << 19  # limits of a block; samples of all channels
CONTAINERS = "containers such as m4a, mp4 or webm need PyAV: pip install av"
# libsndfile's notes about files that are shorter than their header says: RIFF, AIFF, AU, W64, RF64.
SHORT = re.compile(r"^[ \t]*(?:data|SSND|Data Size|riff|Riff size)[ \t]*:[ \t]*(\d+) \(should be (\d+)\)", re.MULTILINE)
UNKNOWN_SIZE = 0x7FFF_0000  # written by programs that cannot seek back to the header
UNKNOWN_FRAMES = 1 << 56  # libsndfile uses a huge number
SLACK_BYTES = 1024  # writers differ in what they count
SLACK_SECONDS, CONTAINER_SLACK_SECONDS = 0.1, 1.0
EXACT_DURATION = ("mov", "matroska", "asf", "avi", "flv")  # for others FFmpeg estimates it from the bit rate
PAGE = b"OggS"
# FFmpeg's names of containers that are one file; playlists could open other files and URLs
SINGLE_FILES = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,aac,ac3,eac3,amr,ape,asf,avi,caf,dsf,dts,flv,latm,mp3,mpc,mpc8,mpeg,mpegts,"
    "ogg,rm,tak,tta,wav,w64,wv,aiff,au,flac"
)


class Source(Protocol):
    """Audio of one rate."""

    name: str  # for messages
    rate: int  # Hz
    channels: int
    frames: int | None  # None: unknown
    slack: int  # frames that may be missing at the end

    def blocks(self, first: int, check: Check) -> Iterator[Samples]:
        """Yield mono blocks from a frame on, checked and not empty.

        `check` is called for each decoded block, also for those before `first`.
        """

    def count(self, check: Check) -> int:
        """Return the number of frames; decode the file if its header does not contain it."""


def block_size(rate: int, channels: int) -> int:
    """Return the number of frames of a block."""
    return max(1, min(BLOCK_SECONDS * rate, BLOCK_SAMPLES // channels))


class ArraySource:
    """Samples in memory, which are converted block by block.

    Parameters
    ----------
    array : ndarray
        Shape (n, channels); a result of `cyllama.media._samples.as_array`.
    rate : int
        In Hz.
    """

    name = "the array"
    slack = 0

    def __init__(self, array: Array, rate: int) -> None:
        self.array, self.rate = array, rate
        self.frames: int | None = len(array)
        self.channels = array.shape[1]

    def blocks(self, first: int, check: Check) -> Iterator[Samples]:
        """Yield mono blocks from a frame on."""
        size = block_size(self.rate, self.channels)
        for start in range(first, len(self.array), size):
            block = to_mono(self.array[start : start + size])
            check_samples(block, start, self.name)
            check(start + len(block))
            yield block

    def count(self, check: Check) -> int:
        """Return the number of frames."""
        return len(self.array)


class _Forward(soundfile.SoundFile):  # type: ignore[misc]
    """An audio file without seeking: soundfile seeks after each block, which is audible in MP3 and Opus."""

    def seekable(self) -> bool:
        """Return False, so that soundfile does not seek."""
        return False


class SoundFileSource:
    """A file that libsndfile reads.

    Parameters
    ----------
    data : path or bytes
        The file, or its content.
    name : str
        For messages.

    Raises
    ------
    soundfile.LibsndfileError
        libsndfile cannot read the file.
    MediaError
        The file is truncated.
    """

    def __init__(self, data: Path | bytes, name: str) -> None:
        self.data, self.name = data, name
        with self._open() as file:
            self.rate, self.channels = _plausible(file.samplerate, file.channels, name)
            self.frames: int | None = file.frames
            if file.frames >= UNKNOWN_FRAMES or (file.format == "MP3" and not _mp3_has_length(data)):
                self.frames = None
            # Ogg is indexed by pages only, and its codecs decode differently from the middle
            self.seeks = soundfile.SoundFile.seekable(file) and file.format != "OGG"
            self.slack = int(SLACK_SECONDS * self.rate)
            notes = file.extra_info
            is_ogg = file.format == "OGG"
        for declared, actual in SHORT.findall(notes):
            if int(actual) + SLACK_BYTES < int(declared) < UNKNOWN_SIZE:
                raise MediaError(
                    f"{name} is truncated: its header says {int(declared):,} bytes, it has {int(actual):,}"
                )
        if is_ogg and not _ends_with_a_page(data):
            raise MediaError(f"{name} is truncated: it ends in the middle of a page")

    def blocks(self, first: int, check: Check) -> Iterator[Samples]:
        """Yield mono blocks from a frame on."""
        yield from _mono_blocks(self._decoded(first), first, check, self.name)

    def count(self, check: Check) -> int:
        """Return the number of frames; decode the file if its header does not contain it."""
        return _count(self.frames, self._decoded(0), check)

    def _decoded(self, first: int) -> Iterator[tuple[int, Array]]:
        size = block_size(self.rate, self.channels)
        with self._open() as file:
            position = 0
            if self.seeks and first:
                position = self._call(file.seek, min(first, file.frames))
            while len(block := self._call(file.read, size, dtype="float32", always_2d=True)):
                yield position, block
                position += len(block)

    @contextlib.contextmanager
    def _open(self) -> Iterator[soundfile.SoundFile]:
        if isinstance(self.data, bytes):
            with _Forward(io.BytesIO(self.data)) as file:
                yield file
            return
        # by descriptor: libsndfile then detects the format by content, not by the suffix of the name
        with open(self.data, "rb", buffering=0) as raw, _Forward(raw.fileno(), closefd=False) as file:
            yield file

    def _call(self, function: Any, *args: object, **kwargs: object) -> Any:
        try:
            return function(*args, **kwargs)
        except soundfile.SoundFileError as error:
            raise MediaError(f"{self.name} is damaged or truncated: {_reason(error)}") from error


class AvSource:
    """The first audio track of a container that FFmpeg reads.

    Parameters
    ----------
    data : path or bytes
        The file, or its content.
    name : str
        For messages.
    av : module
        PyAV.

    Raises
    ------
    av.error.FFmpegError
        FFmpeg cannot read the file.
    MediaError
        The file has no audio.
    """

    def __init__(self, data: Path | bytes, name: str, av: ModuleType) -> None:
        self.data, self.name, self._av = data, name, av
        with self._open() as container:
            if not container.streams.audio:
                raise MediaError(f"{name} has no audio track")
            stream = container.streams.audio[0]
            if stream.codec_context is None:
                raise MediaError(f"{name} has audio in a format that FFmpeg cannot decode")
            self.rate, self.channels = _plausible(stream.rate or 0, stream.channels, name)
            self.frames: int | None = None
            if container.format.name.startswith(EXACT_DURATION):
                if stream.duration is not None:
                    self.frames = round(stream.duration * stream.time_base * self.rate)
                elif container.duration is not None:
                    self.frames = round(container.duration * self.rate / av.time_base)
            self.slack = int(CONTAINER_SLACK_SECONDS * self.rate)

    def blocks(self, first: int, check: Check) -> Iterator[Samples]:
        """Yield mono blocks from a frame on; earlier frames are decoded and dropped."""
        yield from _mono_blocks(self._decoded(), first, check, self.name)

    def count(self, check: Check) -> int:
        """Return the number of frames; decode the file if its header does not contain it."""
        return _count(self.frames, self._decoded(), check)

    def _decoded(self) -> Iterator[tuple[int, Array]]:
        position = 0
        try:
            with self._open() as container:
                stream = container.streams.audio[0]
                # interleaved floats of one rate, for every decoder
                packed = self._av.AudioResampler(format="flt", layout=stream.layout, rate=self.rate)
                for frame in self._frames(container.decode(stream), packed):
                    block = frame.to_ndarray().reshape(-1, self.channels)
                    if len(block):
                        yield position, block
                        position += len(block)
        except self._av.error.FFmpegError as error:
            raise MediaError(f"{self.name} is damaged or truncated: {_reason(error)}") from error

    def _frames(self, decoded: Iterator[Any], packed: Any) -> Iterator[Any]:
        for frame in itertools.chain(decoded, [None]):
            try:
                frames = packed.resample(frame)
            except ValueError as error:  # another rate or number of channels than before
                raise MediaError(f"{self.name} changes in the middle: {_reason(error)}") from error
            yield from frames

    def _open(self) -> Any:
        file = io.BytesIO(self.data) if isinstance(self.data, bytes) else os.path.abspath(self.data)
        return self._av.open(file, options={"format_whitelist": SINGLE_FILES})


def open_encoded(data: Path | bytes, name: str) -> Source:
    """Return the source for an audio file or its content: libsndfile, or FFmpeg if PyAV is installed.

    Raises
    ------
    MediaError
        The file cannot be read; the message names PyAV if it is not installed.
    """
    if data == b"":
        raise MediaError(f"{name} is empty, expected an audio file")
    try:
        return SoundFileSource(data, name)
    except soundfile.SoundFileError as error:
        reason = _reason(error)
    try:
        import av
    except ImportError:
        raise MediaError(f"cannot read {name} as audio: {reason}; {CONTAINERS}") from None
    try:
        return AvSource(data, name, av)
    except av.error.FFmpegError as error:
        raise MediaError(f"cannot read {name} as audio: {reason}; FFmpeg says: {_reason(error)}") from error


def _mono_blocks(decoded: Iterator[tuple[int, Array]], first: int, check: Check, name: str) -> Iterator[Samples]:
    """Yield the blocks of a decoder, which have their positions, as mono from frame `first` on."""
    for start, block in decoded:
        check(start + len(block))
        if start + len(block) > first:
            skip = max(0, first - start)
            mono = to_mono(block[skip:])
            check_samples(mono, start + skip, name)
            yield mono


def _count(frames: int | None, decoded: Iterator[tuple[int, Array]], check: Check) -> int:
    if frames is not None:
        return frames
    end = 0
    for start, block in decoded:
        end = start + len(block)
        check(end)
    return end


def _plausible(rate: int, channels: int, name: str) -> tuple[int, int]:
    if not 1 <= rate <= MAX_RATE or not 1 <= channels <= MAX_CHANNELS:
        raise MediaError(
            f"{name} has {channels} channels of {rate} Hz, expected at most {MAX_CHANNELS} of at most {MAX_RATE:,} Hz"
        )
    return int(rate), int(channels)


def _reason(error: Exception) -> str:
    """Return the message of a library, without the name of its file object."""
    text = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return str(text).strip().rstrip(".")


def _mp3_has_length(data: Path | bytes) -> bool:
    """Return whether the file contains its number of frames; otherwise libsndfile estimates it from the bit rate."""
    head = _part(data, 0, 10)
    start = 0
    if head[:3] == b"ID3":  # the tag's size: four times seven bits
        start = 10 + sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    return any(note in _part(data, start, 4096) for note in (b"Xing", b"Info", b"VBRI"))


def _ends_with_a_page(data: Path | bytes) -> bool:
    """Return whether the last page of an Ogg file is complete."""
    size = len(data) if isinstance(data, bytes) else data.stat().st_size
    tail = _part(data, max(0, size - 65_307), 65_307)  # a page is at most that long
    start = tail.rfind(PAGE)
    if start < 0 or len(tail) < start + 27:
        return False
    table = tail[start + 27 : start + 27 + tail[start + 26]]
    return len(table) == tail[start + 26] and len(tail) >= start + 27 + len(table) + sum(table)


def _part(data: Path | bytes, start: int, size: int) -> bytes:
    if isinstance(data, bytes):
        return data[start : start + size]
    with open(data, "rb") as file:
        file.seek(start)
        return file.read(size)
