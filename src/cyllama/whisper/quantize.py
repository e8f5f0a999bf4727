"""Quantize Whisper models to 4, 5 or 8 bits, with the same result as whisper.cpp's ``whisper-quantize``."""

from __future__ import annotations

import difflib
import math
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cyllama import models
from cyllama._cancel import Cancel, check_cancel, raise_if_cancelled
from cyllama._native.files import atomic_path
from cyllama.errors import CancelledError, ModelLoadError, UnsupportedError
from cyllama.whisper._model_source import MAGIC
from cyllama.whisper._parakeet_decoder import is_parakeet
from cyllama.whisper._quantize import block_size, file_type, quantize_rows, tensor_type, type_names

__all__ = ["QUANTIZE_TYPES", "quantize"]

QUANTIZE_TYPES = type_names()
N_HEADER = 11  # numbers of the header: the sizes of the model and the file type
F32, F16 = 0, 1
WIDTH_OF = {F32: 4, F16: 2}  # bytes
MAX_DIMS = 4
OUTSIDE_LAYERS, PER_ENCODER_LAYER, PER_DECODER_LAYER = 11, 15, 24  # numbers of tensors
# Tensors with two dimensions that are not quantized, as upstream.
KEPT = ("encoder.conv1.bias", "encoder.conv2.bias", "encoder.positional_embedding", "decoder.positional_embedding")
CHUNK = 1 << 20  # values at a time, about 4 ms; then `cancel` is checked
COPY = 1 << 22  # bytes at a time


def quantize(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    type: str = "q8_0",
    *,
    on_progress: Callable[[float], object] | None = None,
    cancel: Cancel | None = None,
) -> Path:
    """Quantize a Whisper model.

    Parameters
    ----------
    source : path or str
        A model of whisper.cpp in 16 or 32 bit floats, or its name (``"tiny.en"``).
    destination : path
        The file to write, atomically: it is replaced only when all is written.
    type : str
        ``"q8_0"`` (half the size, nearly the same text), ``"q5_1"``, ``"q5_0"``, ``"q4_1"`` or ``"q4_0"`` (smallest).
    on_progress : callable, optional
        Called with the progress, 0 to 1. Returning False cancels.
    cancel : Cancel, optional
        Stops the call within milliseconds, as Ctrl-C does.

    Returns
    -------
    pathlib.Path
        `destination`.

    Raises
    ------
    FileNotFoundError
        The model does not exist.
    ModelLoadError
        `source` is not a model of whisper.cpp, is truncated or already quantized.
    ValueError
        `type` is unknown, or `destination` is `source`.
    UnsupportedError
        `source` is a Parakeet model.
    CancelledError
        The call was cancelled; `destination` is unchanged.

    Notes
    -----
    Releases the GIL while computing.
    """
    name = _type_name(type)
    check_cancel(cancel)
    if on_progress is not None and not callable(on_progress):
        raise TypeError(f"on_progress is {on_progress!r}, expected a callable")
    path, target = models.resolve(source), Path(destination)
    if path.is_dir():
        raise IsADirectoryError(f"source is {str(path)!r}, a directory, expected a model file")
    if target.exists() and os.path.samefile(path, target):
        raise ValueError(f"destination is {str(target)!r}, the same file as source")
    with open(path, "rb") as file:
        reader = _Reader(file, path)
        header, n_tensors = _read_header(reader, name)
        with atomic_path(target) as temporary, open(temporary, "wb") as out:
            out.write(header)
            for part in _convert_tensors(reader, name, n_tensors):
                raise_if_cancelled(cancel)
                out.write(part)
                if on_progress is not None and on_progress(reader.position / reader.size) is False:
                    raise CancelledError("the call was cancelled")
            raise_if_cancelled(cancel)
    return target


class _Reader:
    """Reads little-endian numbers from a file, and raises if it ends too early."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.file, self.path = file, path
        self.size = os.fstat(file.fileno()).st_size
        self.position = 0

    def take(self, size: int) -> bytes:
        if size < 0:
            raise self.error(f"is damaged: a length before byte {self.position:,} is {size}")
        if self.position + size > self.size:
            raise self.error(f"is truncated: it has {self.size:,} bytes, expected at least {self.position + size:,}")
        self.position += size
        return self.file.read(size)

    def numbers(self, count: int) -> tuple[int, ...]:
        return struct.unpack(f"<{count}i", self.take(4 * count))

    def error(self, what: str) -> ModelLoadError:
        return ModelLoadError(f"{str(self.path)!r} {what}", engine="whisper", function="quantize")


def _read_header(reader: _Reader, name: str) -> tuple[bytes, int]:
    """Return the header and vocabulary with the new file type, and the expected number of weights."""
    if reader.size < 4 or reader.take(4) != struct.pack("<I", MAGIC):
        raise reader.error("is not a model of whisper.cpp: it does not begin with 'lmgg'")
    position = reader.file.tell()
    if is_parakeet(struct.pack("<I", MAGIC) + reader.file.read(128)):
        raise UnsupportedError(f"source is {str(reader.path)!r}, a Parakeet model; quantize it with whisper.cpp's "
                               "parakeet-quantize")  # fmt: skip
    reader.file.seek(position)
    sizes = reader.numbers(N_HEADER)
    if any(size < 1 for size in sizes[:-1]):
        raise reader.error(f"is not a model of whisper.cpp: its sizes are {sizes[:-1]}")
    if sizes[-1] not in (F32, F16):
        known = [other for other in QUANTIZE_TYPES if file_type(other) == sizes[-1]]
        raise reader.error(f"is already quantized ({known[0] if known else f'file type {sizes[-1]}'}); "
                           "expected a model in 16 or 32 bit floats")  # fmt: skip
    parts = [struct.pack(f"<I{N_HEADER}i", MAGIC, *sizes[:-1], file_type(name))]
    n_mel, n_fft = reader.numbers(2)
    if n_mel < 1 or n_fft < 1:
        raise reader.error(f"is not a model of whisper.cpp: its mel filters are {n_mel} x {n_fft}")
    parts += [struct.pack("<2i", n_mel, n_fft), reader.take(4 * n_mel * n_fft)]
    (n_vocab,) = reader.numbers(1)
    parts.append(struct.pack("<i", n_vocab))
    for _ in range(n_vocab):
        (length,) = reader.numbers(1)
        parts += [struct.pack("<i", length), reader.take(length)]
    return b"".join(parts), OUTSIDE_LAYERS + PER_ENCODER_LAYER * sizes[4] + PER_DECODER_LAYER * sizes[8]


def _convert_tensors(reader: _Reader, name: str, expected: int) -> Iterator[bytes]:
    """Yield the quantized weights in parts."""
    found = 0
    while reader.position < reader.size or found < expected:
        if reader.position == reader.size:
            raise reader.error(f"is truncated: it has {found} of {expected} weights")
        found += 1
        n_dims, length, kind = reader.numbers(3)
        if not 1 <= n_dims <= MAX_DIMS:
            raise reader.error(f"is damaged: a tensor before byte {reader.position:,} has {n_dims} dimensions")
        shape = reader.numbers(n_dims)
        raw = reader.take(length)
        if kind not in WIDTH_OF:
            raise reader.error(f"is already quantized: {raw.decode('utf-8', 'replace')} has the type {kind}")
        if any(size < 1 for size in shape):
            raise reader.error(f"is damaged: {raw.decode('utf-8', 'replace')} has the shape {shape}")
        if n_dims != 2 or raw.decode("utf-8", "replace") in KEPT:
            yield struct.pack(f"<3i{n_dims}i", n_dims, length, kind, *shape) + raw
            yield from _copy_parts(reader, WIDTH_OF[kind] * math.prod(shape))
            continue
        if shape[0] % block_size(name):
            raise reader.error(f"cannot be {name}: rows of {raw.decode('utf-8', 'replace')} have {shape[0]} values, "
                               f"expected a multiple of {block_size(name)}")  # fmt: skip
        yield struct.pack("<5i", n_dims, length, tensor_type(name), *shape) + raw
        yield from _quantize_parts(reader, shape, kind, name)


def _copy_parts(reader: _Reader, size: int) -> Iterator[bytes]:
    while size:
        part = reader.take(min(size, COPY) if reader.position + size <= reader.size else size)
        size -= len(part)
        yield part


def _quantize_parts(reader: _Reader, shape: tuple[int, ...], kind: int, name: str) -> Iterator[bytes]:
    """Yield a quantized matrix of shape[1] rows. Rows are independent, so the bytes do not depend on the parts."""
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
