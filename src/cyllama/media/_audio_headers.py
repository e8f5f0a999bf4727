"""Headers of audio files that do not have the size of the samples: those of live recorders, and of crashed ones."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Mapping

__all__ = ["PatchedFile", "size_patches"]

Part = Callable[[int, int], bytes]
"""Returns bytes of a file: (start, size)."""

UNKNOWN_32 = b"\xff" * 4  # libsndfile then reads to the end of the file
UNKNOWN_64 = 2**63
RIFF_HEADER, CHUNK_HEADER = 12, 8
W64_HEADER, W64_CHUNK_HEADER = 40, 24
MAX_CHUNKS = 256
CAF_CHUNK_HEADER = 12
AIFF_OFFSETS = 8  # bytes of the chunk SSND before the samples


def size_patches(part: Part, size: int) -> tuple[dict[int, bytes], int]:
    """Return the bytes of a header to replace, so that libsndfile reads all samples of the file.

    A size of 0 is replaced if samples follow it, and the one of RF64 also if it is larger than the file can be. Sizes
    that are valid, and sizes of 32 bits that are too large, are left: libsndfile reads as much as there is.

    Parameters
    ----------
    part : callable
        Returns the bytes of the file: (start, size).
    size : int
        Bytes of the file.

    Returns
    -------
    patches : dict of int to bytes
        By offset.
    missing : int
        Bytes that the replaced size says are there, and are not.
    """
    head = part(0, W64_HEADER)
    if head[:4] == b"caff":
        return _caf_patches(part, size)
    return _patches(part, size, head), 0


def _patches(part: Part, size: int, head: bytes) -> dict[int, bytes]:
    if head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:12] == b"WAVE":
        return _riff_patches(part, size, "<" if head[:4] != b"RIFX" else ">")
    if head[:4] == b"FORM" and head[8:11] == b"AIF":
        return _aiff_patches(part, size)
    if head[:4] in (b".snd", b"dns."):
        return {8: UNKNOWN_32} if len(head) > 12 and not any(head[8:12]) else {}
    if head[:4] == b"riff" and head[24:28] == b"wave":
        return _w64_patches(part, size)
    return {}


def _riff_patches(part: Part, size: int, order: str) -> dict[int, bytes]:
    position, long_size = RIFF_HEADER, None
    for _ in range(MAX_CHUNKS):
        head = part(position, CHUNK_HEADER)
        if len(head) < CHUNK_HEADER:
            return {}
        (length,) = struct.unpack(f"{order}I", head[4:])
        if head[:4] == b"ds64":
            long_size = position + CHUNK_HEADER + 8  # of the data, after that of the file
        if head[:4] == b"data":
            samples = position + CHUNK_HEADER
            if long_size is not None:
                (declared,) = struct.unpack("<Q", part(long_size, 8))
                if declared > UNKNOWN_64 or (not declared and _has_samples(part, samples, size, order)):
                    return {long_size: struct.pack("<Q", UNKNOWN_64)}
            elif not length and _has_samples(part, samples, size, order):
                return {position + 4: UNKNOWN_32}
            return {}
        position += CHUNK_HEADER + length + length % 2
    return {}


def _aiff_patches(part: Part, size: int) -> dict[int, bytes]:
    position = RIFF_HEADER
    for _ in range(MAX_CHUNKS):
        head = part(position, CHUNK_HEADER)
        if len(head) < CHUNK_HEADER:
            return {}
        (length,) = struct.unpack(">I", head[4:])
        if head[:4] == b"SSND":
            samples = position + CHUNK_HEADER + AIFF_OFFSETS
            is_lost = length <= AIFF_OFFSETS and _has_samples(part, samples, size, ">")
            return {position + 4: UNKNOWN_32} if is_lost else {}
        position += CHUNK_HEADER + length + length % 2
    return {}


def _w64_patches(part: Part, size: int) -> dict[int, bytes]:
    position = W64_HEADER
    for _ in range(MAX_CHUNKS):
        head = part(position, W64_CHUNK_HEADER)
        if len(head) < W64_CHUNK_HEADER:
            return {}
        (length,) = struct.unpack("<Q", head[16:])  # with the header
        if head[:4] == b"data":
            rest = size - position
            is_lost = length <= W64_CHUNK_HEADER < rest
            return {position + 16: struct.pack("<Q", rest)} if is_lost else {}
        if length < W64_CHUNK_HEADER:
            return {}
        position += (length + 7) // 8 * 8
    return {}


def _caf_patches(part: Part, size: int) -> tuple[dict[int, bytes], int]:
    position = CHUNK_HEADER
    for _ in range(MAX_CHUNKS):
        head = part(position, CAF_CHUNK_HEADER)
        if len(head) < CAF_CHUNK_HEADER:
            break
        (length,) = struct.unpack(">q", head[4:])
        if head[:4] == b"data":
            rest = size - position - CAF_CHUNK_HEADER
            if 0 < length <= rest:
                break
            # libsndfile rejects a file that is shorter than its header says
            return {position + 4: struct.pack(">q", rest)}, max(0, length - rest)
        if length < 0:
            break
        position += CAF_CHUNK_HEADER + length
    return {}, 0


def _has_samples(part: Part, start: int, size: int, order: str) -> bool:
    """Return whether samples follow, not only other chunks as in a file that is really empty."""
    while start < size:
        head = part(start, CHUNK_HEADER)
        if len(head) < CHUNK_HEADER or not (head[:4].isascii() and head[:4].decode().isprintable()):
            return True
        (length,) = struct.unpack(f"{order}I", head[4:])
        start += CHUNK_HEADER + length + length % 2
    return start > size + 1


class PatchedFile(io.RawIOBase):
    """A file with some bytes replaced, without a copy.

    Parameters
    ----------
    file : binary file
        Not closed.
    patches : mapping of int to bytes
        The replaced bytes by offset.
    """

    def __init__(self, file: io.RawIOBase | io.BytesIO, patches: Mapping[int, bytes]) -> None:
        self._file, self._patches = file, patches
        self._size = file.seek(0, io.SEEK_END)
        file.seek(0)

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()

    def seek(self, offset: int, whence: int = 0) -> int:
        """Set the position, and return it; libsndfile seeks outside of the file if its header is wrong."""
        base = (0, self._file.tell(), self._size)[whence]
        return self._file.seek(min(max(0, base + offset), self._size))

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read bytes into a buffer, and return their number."""
        start = self._file.tell()
        read = self._file.readinto(buffer) or 0
        view = memoryview(buffer).cast("B")
        for offset, patch in self._patches.items():
            first, last = max(start, offset), min(start + read, offset + len(patch))
            if first < last:
                view[first - start : last - start] = patch[first - offset : last - offset]
        return read
