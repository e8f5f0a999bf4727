"""Smaller whisper models: matrices in 4, 5 or 8 bits, the same bytes as whisper.cpp's ``whisper-quantize``."""

from __future__ import annotations

import difflib
import math
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cyllama import models
from cyllama._native.files import atomic_path
from cyllama.errors import CancelledError, ModelLoadError, UnsupportedError
from cyllama.whisper.parakeet import is_parakeet

from ._quantize import block_size, file_type, quantize_rows, tensor_type, type_names

__all__ = ["QUANTIZE_TYPES", "quantize"]

QUANTIZE_TYPES = type_names()
MAGIC = 0x67676D6C  # GGML_FILE_MAGIC
N_HEADER = 11  # the sizes of the model and the file type
F32, F16 = 0, 1
WIDTH_OF = {F32: 4, F16: 2}  # bytes
MAX_DIMS = 4
OUTSIDE, PER_ENCODER_LAYER, PER_DECODER_LAYER = 11, 15, 24  # numbers of tensors
# Upstream's list: these have two dimensions and are kept.
KEPT = ("encoder.conv1.bias", "encoder.conv2.bias", "encoder.positional_embedding", "decoder.positional_embedding")
CHUNK = 1 << 20  # numbers at a time: 4 ms or so, after which cancelling is looked at
COPY = 1 << 22  # bytes at a time


def quantize(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    type: str = "q8_0",
    *,
    on_progress: Callable[[float], object] | None = None,
    cancel: Any = None,
) -> Path:
    """Write a whisper model with its matrices in fewer bits.

    Parameters
    ----------
    source : path or str
        A model of whisper.cpp in 16 or 32 bit floats, or the name of one (``"tiny.en"``).
    destination : path
        The file to write. It appears, or is replaced, only when it is whole.
    type : str
        ``"q8_0"`` (about half of the size, the text hardly changes), ``"q5_1"``, ``"q5_0"``, ``"q4_1"`` or
        ``"q4_0"`` (the smallest).
    on_progress : callable, optional
        Called with the part that is done, 0 to 1. Returning False cancels.
    cancel : object with ``is_set()``, optional
        Such as `threading.Event`.

    Returns
    -------
    pathlib.Path
        `destination`.

    Raises
    ------
    FileNotFoundError
        No such model.
    ModelLoadError
        The source is no model of whisper.cpp, is truncated, or is quantized already.
    ValueError
        There is no such type, or `destination` is `source`.
    UnsupportedError
        The source is a Parakeet model.
    CancelledError
        It was cancelled; nothing was written.

    Notes
    -----
    The GIL is released while computing. Cancelling and Ctrl-C are obeyed within milliseconds.
    """
    name = _type_name(type)
    if cancel is not None and not callable(getattr(cancel, "is_set", None)):
        raise TypeError(f"cancel is {cancel!r}, expected an object with is_set(), such as threading.Event")
    if on_progress is not None and not callable(on_progress):
        raise TypeError(f"on_progress is {on_progress!r}, expected a callable")
    path, target = models.resolve(source), Path(destination)
    if path.is_dir():
        raise IsADirectoryError(f"source is {str(path)!r}, a directory, expected a model file")
    if target.exists() and os.path.samefile(path, target):
        raise ValueError(f"destination is {str(target)!r}, the same file as source")
    with open(path, "rb") as file:
        reader = _Reader(file, path)
        header, n_tensors = _header(reader, name)
        with atomic_path(target) as temporary, open(temporary, "wb") as out:
            out.write(header)
            for part in _tensors(reader, name, n_tensors):
                _stop_if(cancel)
                out.write(part)
                if on_progress is not None and on_progress(reader.position / reader.size) is False:
                    raise CancelledError("the call was cancelled")
            _stop_if(cancel)
    return target


class _Reader:
    """Little-endian numbers out of a file; a file that ends too early is an error."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.file, self.path = file, path
        self.size = os.fstat(file.fileno()).st_size
        self.position = 0

    def take(self, size: int) -> bytes:
        if size < 0:
            raise self.wrong(f"is damaged: a length of {size} before byte {self.position:,}")
        if self.position + size > self.size:
            raise self.wrong(f"is truncated: byte {self.position + size:,} is needed, it has {self.size:,}")
        self.position += size
        return self.file.read(size)

    def numbers(self, count: int) -> tuple[int, ...]:
        return struct.unpack(f"<{count}i", self.take(4 * count))

    def wrong(self, what: str) -> ModelLoadError:
        return ModelLoadError(f"{str(self.path)!r} {what}", engine="whisper", function="quantize")


def _header(reader: _Reader, name: str) -> tuple[bytes, int]:
    """All before the weights, with the new file type; and how many weights there are to be."""
    if reader.size < 4 or reader.take(4) != struct.pack("<I", MAGIC):
        raise reader.wrong("is no model of whisper.cpp (its first bytes are not 'lmgg')")
    position = reader.file.tell()
    if is_parakeet(struct.pack("<I", MAGIC) + reader.file.read(128)):
        raise UnsupportedError(f"{str(reader.path)!r} is a Parakeet model: whisper.cpp's parakeet-quantize writes it "
                               "with smaller weights")  # fmt: skip
    reader.file.seek(position)
    sizes = reader.numbers(N_HEADER)
    if any(size < 1 for size in sizes[:-1]):
        raise reader.wrong(f"is no model of whisper.cpp: its sizes are {sizes[:-1]}")
    if sizes[-1] not in (F32, F16):
        known = [other for other in QUANTIZE_TYPES if file_type(other) == sizes[-1]]
        raise reader.wrong(f"is quantized already ({known[0] if known else f'file type {sizes[-1]}'}); "
                           "take the model in 16 or 32 bit floats")  # fmt: skip
    parts = [struct.pack(f"<I{N_HEADER}i", MAGIC, *sizes[:-1], file_type(name))]
    n_mel, n_fft = reader.numbers(2)
    if n_mel < 1 or n_fft < 1:
        raise reader.wrong(f"is no model of whisper.cpp: mel filters of {n_mel} x {n_fft}")
    parts += [struct.pack("<2i", n_mel, n_fft), reader.take(4 * n_mel * n_fft)]
    (n_vocab,) = reader.numbers(1)
    parts.append(struct.pack("<i", n_vocab))
    for _ in range(n_vocab):
        (length,) = reader.numbers(1)
        parts += [struct.pack("<i", length), reader.take(length)]
    return b"".join(parts), OUTSIDE + PER_ENCODER_LAYER * sizes[4] + PER_DECODER_LAYER * sizes[8]


def _tensors(reader: _Reader, name: str, expected: int) -> Iterator[bytes]:
    """The weights, piece by piece."""
    found = 0
    while reader.position < reader.size or found < expected:
        if reader.position == reader.size:
            raise reader.wrong(f"is truncated: it has {found} of {expected} weights")
        found += 1
        n_dims, length, kind = reader.numbers(3)
        if not 1 <= n_dims <= MAX_DIMS:
            raise reader.wrong(f"is damaged: a tensor of {n_dims} dimensions before byte {reader.position:,}")
        shape = reader.numbers(n_dims)
        raw = reader.take(length)
        if kind not in WIDTH_OF:
            raise reader.wrong(f"is quantized already: {raw.decode('utf-8', 'replace')} has the type {kind}")
        if any(size < 1 for size in shape):
            raise reader.wrong(f"is damaged: {raw.decode('utf-8', 'replace')} has the shape {shape}")
        if n_dims != 2 or raw.decode("utf-8", "replace") in KEPT:
            yield struct.pack(f"<3i{n_dims}i", n_dims, length, kind, *shape) + raw
            yield from _copied(reader, WIDTH_OF[kind] * math.prod(shape))
            continue
        if shape[0] % block_size(name):
            raise reader.wrong(f"cannot be {name}: {raw.decode('utf-8', 'replace')} has rows of {shape[0]} numbers, "
                               f"which is no multiple of {block_size(name)}")  # fmt: skip
        yield struct.pack("<5i", n_dims, length, tensor_type(name), *shape) + raw
        yield from _quantized(reader, shape, kind, name)


def _copied(reader: _Reader, size: int) -> Iterator[bytes]:
    while size:
        part = reader.take(min(size, COPY) if reader.position + size <= reader.size else size)
        size -= len(part)
        yield part


def _quantized(reader: _Reader, shape: tuple[int, ...], kind: int, name: str) -> Iterator[bytes]:
    """A matrix of shape[1] rows; each row is for itself, so the bytes do not depend on the pieces."""
    width, left = shape
    while left:
        rows = min(left, max(1, CHUNK // width))
        raw = reader.take(WIDTH_OF[kind] * width * rows)
        numbers = np.frombuffer(raw, "<f4" if kind == F32 else "<f2").astype(np.float32).reshape(rows, width)
        yield quantize_rows(numbers, name)
        left -= rows


def _type_name(type: object) -> str:
    if not isinstance(type, str):
        raise TypeError(f"type is {type!r}, expected one of {', '.join(QUANTIZE_TYPES)}")
    name = type.casefold()
    if name not in QUANTIZE_TYPES:
        near = difflib.get_close_matches(name, QUANTIZE_TYPES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(QUANTIZE_TYPES)}"
        raise ValueError(f"type is {type!r}; {hint}")
    return name


def _stop_if(cancel: Any) -> None:
    if cancel is not None and cancel.is_set():
        raise CancelledError("the call was cancelled")
