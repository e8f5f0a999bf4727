"""Sources of audio: an array, a file that libsndfile reads, or a container that FFmpeg reads.

A source has a rate and a length, and yields mono blocks from any frame on. Only the current block is in memory.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import soundfile

from cyllama.errors import DamagedAudioWarning, MediaError
from cyllama.media._audio_file import AudioFile
from cyllama.media._audio_headers import PatchedFile, size_patches
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
SMALL_BLOCK = 4096  # frames
# Gaps between timestamps that are filled with silence: FFmpeg leaves out what it cannot decode.
LOST_SECONDS, LONGEST_LOST_SECONDS = 0.1, 60.0
PAGE, MAX_PAGE = b"OggS", 65_307  # bytes
# FFmpeg's names of containers that are one file; playlists could open other files and URLs
SINGLE_FILES = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,aac,ac3,eac3,amr,ape,asf,avi,caf,dsf,dts,flv,latm,mp3,mpc,mpc8,mpeg,mpegts,"
    "ogg,rm,tak,tta,wav,w64,wv,aiff,au,flac"
)


class Source(ABC):
    """Audio of one rate.

    Attributes
    ----------
    name : str
        For messages.
    rate : int
        In Hz.
    channels : int
    frames : int or None
        None: unknown.
    slack : int
        Frames that may be missing at the end.
    seeks : bool
        Whether blocks from the middle need no decoding of those before.
    channel : int or None
        The channel that is read; None: the average of all.
    warning : str or None
        Where the file is damaged or truncated; known after the last block.
    """

    name: str
    rate: int
    channels: int
    frames: int | None
    slack = 0
    seeks = False
    channel: int | None = None
    _damage: tuple[int, str] | None = None
    warning: str | None = None

    @abstractmethod
    def blocks(self, first: int, check: Check) -> Iterator[Samples]:
        """Yield mono blocks from a frame on, checked and not empty.

        `check` is called for each decoded block, also for those before `first`.
        """

    @abstractmethod
    def count(self, check: Check) -> int:
        """Return the number of frames; decode the file if its header does not contain it."""

    def note_damage(self, frame: int, reason: str) -> None:
        """Keep the first place of damage for `end_at`."""
        if self._damage is None or frame < self._damage[0]:
            self._damage = frame, reason

    def end_at(self, frame: int) -> None:
        """Correct the number of frames after all were decoded, and warn once if the file is damaged or truncated."""
        if self.frames is not None and frame + self.slack < self.frames:
            self.note_damage(
                frame, f"its header says {self.frames / self.rate:.2f} s, {frame / self.rate:.2f} s are left"
            )
            self.frames = frame
        if self._damage is not None and self.warning is None:
            place, reason = self._damage
            self.warning = f"{self.name} is damaged or truncated at {place / self.rate:.2f} s: {reason}"
            warnings.warn(self.warning, DamagedAudioWarning, stacklevel=2)


def block_size(rate: int, channels: int) -> int:
    """Return the number of frames of a block."""
    return max(1, min(BLOCK_SECONDS * rate, BLOCK_SAMPLES // channels))


class ArraySource(Source):
    """Samples in memory, which are converted block by block.

    Parameters
    ----------
    array : ndarray
        Shape (n, channels); a result of `cyllama.media._samples.as_array`.
    rate : int
        In Hz.
    """

    name = "the array"
    seeks = True

    def __init__(self, array: Array, rate: int) -> None:
        self.array, self.rate = array, rate
        self.frames: int | None = len(array)
        self.channels = array.shape[1]

    def blocks(self, first: int, check: Check) -> Iterator[Samples]:
        """Yield mono blocks from a frame on."""
        size = block_size(self.rate, self.channels)
        for start in range(first, len(self.array), size):
            block = to_mono(_chosen(self.array[start : start + size], self.channel))
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


class SoundFileSource(Source):
    """A file that libsndfile reads.

    Parameters
    ----------
    file : AudioFile
    name : str
        For messages.

    Raises
    ------
    soundfile.LibsndfileError
        libsndfile cannot read the file.
    """

    def __init__(self, file: AudioFile, name: str) -> None:
        self.file, self.name = file, name
        self._patches, missing = size_patches(file.part, file.size)
        with self._open() as opened:
            self.rate, self.channels = _plausible(opened.samplerate, opened.channels, name)
            self.frames = opened.frames
            if opened.frames >= UNKNOWN_FRAMES or (opened.format == "MP3" and not _mp3_has_length(file)):
                self.frames = None
            # Ogg is indexed by pages only, and its codecs decode differently from the middle
            self.seeks = soundfile.SoundFile.seekable(opened) and opened.format != "OGG"
            self.slack = int(SLACK_SECONDS * self.rate)
            notes, is_ogg = opened.extra_info, opened.format == "OGG"
        for declared, actual in SHORT.findall(notes):
            if int(actual) + SLACK_BYTES < int(declared) < UNKNOWN_SIZE:
                reason = f"its header says {int(declared):,} bytes, it has {int(actual):,}"
                self.note_damage(self.frames or 0, reason)
        if missing > SLACK_BYTES:
            self.note_damage(self.frames or 0, f"{missing:,} bytes are missing")
        if is_ogg and not _ends_with_a_page(file):
            self.note_damage(self.frames or 0, "it ends in the middle of a page")

    def blocks(self, first: int, check: Check) -> Iterator[Samples]:
        """Yield mono blocks from a frame on."""
        yield from _mono_blocks(self, self._decoded(first), first, check)

    def count(self, check: Check) -> int:
        """Return the number of frames; decode the file if its header does not contain it."""
        return _count(self.frames, self._decoded(0), check)

    def _decoded(self, first: int) -> Iterator[tuple[int, Array]]:
        """Yield the frames with their positions; after an error, those that can still be decoded."""
        end = 0
        reason = ""
        # libsndfile drops a block with an error: smaller ones lose less of what is before it
        for size in (block_size(self.rate, self.channels), SMALL_BLOCK):
            try:
                for position, block in self._read(max(first, end), size):
                    skip = max(0, end - position) if reason else 0
                    if skip < len(block):
                        yield position + skip, block[skip:]
                    end = max(end, position + len(block))
                return
            except soundfile.SoundFileError as error:
                reason = _reason(error) or "libsndfile cannot decode it"
                self.note_damage(end, reason)
        with contextlib.suppress(ImportError, MediaError):  # FFmpeg continues after what is damaged
            for position, block in _open_av(self.file, self.name).decoded():
                skip = max(0, end - position)
                if skip < len(block):
                    yield position + skip, block[skip:]
                    end = position + len(block)
        if not end:
            raise MediaError(f"{self.name} is damaged or truncated: {reason}")

    def _read(self, first: int, size: int) -> Iterator[tuple[int, Array]]:
        with self._open() as file:
            position = 0
            if self.seeks and first:
                position = file.seek(min(first, file.frames))
            while len(block := file.read(size, dtype="float32", always_2d=True)):
                yield position, block
                position += len(block)

    @contextlib.contextmanager
    def _open(self) -> Iterator[soundfile.SoundFile]:
        with self.file.open() as raw:
            if self._patches:
                opened = _Forward(PatchedFile(raw, self._patches))
            elif isinstance(raw, io.BytesIO):
                opened = _Forward(raw)
            else:  # by descriptor: libsndfile then detects the format by content, not by the suffix of the name
                opened = _Forward(raw.fileno(), closefd=False)
            with opened as file:
                yield file


class AvSource(Source):
    """The first audio track of a container that FFmpeg reads.

    Parameters
    ----------
    file : AudioFile
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

    def __init__(self, file: AudioFile, name: str, av: ModuleType) -> None:
        self.file, self.name, self._av = file, name, av
        with self._open() as container:
            if not container.streams.audio:
                raise MediaError(f"{name} has no audio track")
            stream = container.streams.audio[0]
            if stream.codec_context is None:
                raise MediaError(f"{name} has audio in a format that FFmpeg cannot decode")
            self.rate, self.channels = _plausible(stream.rate or 0, stream.channels, name)
            self.frames = None
            if container.format.name.startswith(EXACT_DURATION):
                if stream.duration is not None:
                    self.frames = round(stream.duration * stream.time_base * self.rate)
                elif container.duration is not None:
                    self.frames = round(container.duration * self.rate / av.time_base)
            self.slack = int(CONTAINER_SLACK_SECONDS * self.rate)

    def blocks(self, first: int, check: Check) -> Iterator[Samples]:
        """Yield mono blocks from a frame on; earlier frames are decoded and dropped."""
        yield from _mono_blocks(self, self.decoded(), first, check)

    def count(self, check: Check) -> int:
        """Return the number of frames; decode the file if its header does not contain it."""
        return _count(self.frames, self.decoded(), check)

    def decoded(self) -> Iterator[tuple[int, Array]]:
        """Yield all frames with their positions; silence replaces what cannot be decoded."""
        position = 0
        with self._open() as container:
            stream = container.streams.audio[0]
            packed = _Packed(self._av, stream.layout, self.rate)
            for frame, lost in _gaps(self._frames(container, stream)):
                if lost:
                    self.note_damage(position, f"{lost:.2f} s are missing")
                    for silence in self._silence(round(lost * self.rate)):
                        yield position, silence
                        position += len(silence)
                for block in packed(frame):
                    yield position, block
                    position += len(block)
                    self._decoded_to = position

    def _silence(self, frames: int) -> Iterator[Array]:
        size = block_size(self.rate, self.channels)
        for start in range(0, frames, size):
            yield np.zeros((min(size, frames - start), self.channels), np.float32)

    def _frames(self, container: Any, stream: Any) -> Iterator[Any]:
        """Yield the frames of all packets that can be decoded."""
        self._decoded_to = 0
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except self._av.error.FFmpegError as error:
                self.note_damage(self._decoded_to, _reason(error))
                packet = None
            if packet is None:
                break
            try:
                frames = packet.decode()
            except self._av.error.FFmpegError as error:
                self.note_damage(self._decoded_to, _reason(error))
                continue
            yield from frames

    def _open(self) -> Any:
        return self._av.open(self.file.path_or_object(), options={"format_whitelist": SINGLE_FILES})


def _gaps(frames: Iterator[Any]) -> Iterator[tuple[Any, float]]:
    """Yield each frame with the seconds that are missing before it by its timestamp, and at the end None.

    A timestamp counts if the one of the next frame agrees: those of damaged frames are random.
    """
    clock = None  # where the last frame ends
    frame = next(frames, None)
    while frame is not None:
        following = next(frames, None)
        start, length = _time(frame), frame.samples / frame.sample_rate
        after = start if following is None else _time(following)
        lost = 0.0
        if start is None or clock is None:
            clock = start
        elif after is not None and (following is None or abs(after - start - length) < LOST_SECONDS):
            lost, clock = start - clock, start
        if clock is not None:
            clock += length
        yield frame, lost if LOST_SECONDS < lost <= LONGEST_LOST_SECONDS else 0.0
        frame = following
    yield None, 0.0


def _time(frame: Any) -> float | None:
    return None if frame.pts is None or not frame.time_base else float(frame.pts * frame.time_base)


class _Packed:
    """Converts the frames of a decoder to interleaved floats of one rate and layout."""

    def __init__(self, av: ModuleType, layout: Any, rate: int) -> None:
        self._make: Callable[[], Any] = lambda: av.AudioResampler(format="flt", layout=layout, rate=rate)
        self._resampler = self._make()
        self._channels = len(layout.channels)

    def __call__(self, frame: Any) -> Iterator[Array]:
        """Yield blocks of shape (n, channels); None ends the audio."""
        try:
            frames = self._resampler.resample(frame)
        except ValueError:  # another rate, format or number of channels than before
            frames = self._resampler.resample(None)
            self._resampler = self._make()
            frames += self._resampler.resample(frame)
        for packed in frames:
            block = packed.to_ndarray().reshape(-1, self._channels)
            if len(block):
                yield block


def _open_av(file: AudioFile, name: str) -> AvSource:
    """Return the source of a file that FFmpeg reads.

    Raises
    ------
    ImportError
        PyAV is not installed.
    MediaError
        FFmpeg cannot read the file.
    """
    import av

    try:
        return AvSource(file, name, av)
    except av.error.FFmpegError as error:
        raise MediaError(f"FFmpeg says: {_reason(error)}") from error


def open_encoded(data: Path | bytes, name: str) -> Source:
    """Return the source for an audio file or its content: libsndfile, or FFmpeg if PyAV is installed.

    A file stays open until the source is dropped, so it may be removed meanwhile.

    Raises
    ------
    MediaError
        The file cannot be read; the message names PyAV if it is not installed.
    """
    file = AudioFile(data)
    if not file.size:
        raise MediaError(f"{name} is empty, expected an audio file")
    try:
        return SoundFileSource(file, name)
    except soundfile.SoundFileError as error:
        reason = _reason(error)
    try:
        return _open_av(file, name)
    except ImportError:
        raise MediaError(f"cannot read {name} as audio: {reason}; {CONTAINERS}") from None
    except MediaError as error:
        if not isinstance(error.__cause__, Exception):
            raise
        raise MediaError(
            f"cannot read {name} as audio: {reason}; {error}; expected a file such as WAV, MP3 or FLAC"
        ) from error.__cause__


def _chosen(block: Array, channel: int | None) -> Array:
    """Return the channel that is read, or all."""
    return block if channel is None else block[:, channel : channel + 1]


def _mono_blocks(source: Source, decoded: Iterator[tuple[int, Array]], first: int, check: Check) -> Iterator[Samples]:
    """Yield the blocks of a decoder, which have their positions, as mono from frame `first` on."""
    for start, block in decoded:
        check(start + len(block))
        if start + len(block) > first:
            skip = max(0, first - start)
            mono = to_mono(_chosen(block[skip:], source.channel))
            check_samples(mono, start + skip, source.name)
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


def _mp3_has_length(file: AudioFile) -> bool:
    """Return whether the file contains its number of frames; otherwise libsndfile estimates it from the bit rate."""
    head = file.part(0, 10)
    start = 0
    if head[:3] == b"ID3":  # the tag's size: four times seven bits
        start = 10 + sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    return any(note in file.part(start, 4096) for note in (b"Xing", b"Info", b"VBRI"))


def _ends_with_a_page(file: AudioFile) -> bool:
    """Return whether the last page of an Ogg file is complete."""
    tail = file.part(max(0, file.size - MAX_PAGE), MAX_PAGE)
    start = tail.rfind(PAGE)
    if start < 0 or len(tail) < start + 27:
        return False
    table = tail[start + 27 : start + 27 + tail[start + 26]]
    return len(table) == tail[start + 26] and len(tail) >= start + 27 + len(table) + sum(table)
