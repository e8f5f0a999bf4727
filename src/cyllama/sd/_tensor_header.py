"""Read tensor names and shapes from the header of a model file.

No tensor is loaded, and no pickle is executed. GGUF headers are parsed here because the reader of
`cyllama._native._gguf` (ggml's) rejects tensors of more than four dimensions, which video models have (the patch
embedding of Wan). stable-diffusion.cpp has a second reader for the same reason (``GGUFReader``, gguf_reader_ext.h).
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from cyllama.errors import ModelLoadError

__all__ = ["TensorFile", "read_tensors"]

Shape = tuple[int, ...]

GGUF_MAGIC = b"GGUF"
MAX_HEADER = 1 << 28  # bytes; headers of the largest models have a few megabytes
MAX_COUNT = 1 << 24
# Sizes of GGUF's value types in bytes; 8 is a string, 9 an array.
GGUF_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
GGUF_STRING, GGUF_ARRAY = 8, 9
# Files of the diffusers layout, and the prefix that the engine adds to the names of their tensors.
DIFFUSERS = (
    ("unet/diffusion_pytorch_model.safetensors", "unet."),
    ("vae/diffusion_pytorch_model.safetensors", "vae."),
    ("text_encoder/model.safetensors", "te."),
    ("text_encoder_2/model.safetensors", "te.1."),
)


@dataclass(frozen=True)
class TensorFile:
    """The header of a model file.

    Attributes
    ----------
    format : str
        ``"safetensors"``, ``"gguf"`` or ``"diffusers"`` (a folder).
    tensors : dict
        Shape by name; the first dimension is the contiguous one, as in ggml.
    metadata : dict
        The text values of the metadata (``modelspec.*``, ``general.*`` and others).
    """

    format: str
    tensors: dict[str, Shape]
    metadata: dict[str, str] = field(default_factory=dict)


def read_tensors(path: str | os.PathLike[str]) -> TensorFile | None:
    """Read the header of a model file.

    Parameters
    ----------
    path : path
        A file, or a folder of the diffusers layout.

    Returns
    -------
    TensorFile or None
        None for a format without a readable header, such as a pickle checkpoint.

    Raises
    ------
    FileNotFoundError
    ModelLoadError
        The header is damaged, or the file ends before its tensors do.
    """
    if os.path.isdir(path):
        return _diffusers(path)
    with open(path, "rb") as file:
        head = file.read(9)
        size = os.fstat(file.fileno()).st_size
        file.seek(0)
        try:
            if head[:4] == GGUF_MAGIC:
                metadata: dict[str, str] = {}
                return TensorFile("gguf", dict(_gguf(file, metadata)), metadata)
            if len(head) == 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size:
                return _safetensors(file, size)
        except (
            ValueError,
            LookupError,
            TypeError,
            AttributeError,
            ArithmeticError,
            struct.error,
            RecursionError,
        ) as error:
            raise ModelLoadError(f"{os.fspath(path)} has a damaged header: {error}", engine="sd") from error
    return None


def _diffusers(path: str | os.PathLike[str]) -> TensorFile:
    tensors: dict[str, Shape] = {}
    for name, prefix in DIFFUSERS:
        part = os.path.join(path, name)
        if os.path.isfile(part) and (found := read_tensors(part)) is not None:
            tensors |= {prefix + key: shape for key, shape in found.tensors.items()}
    if not tensors:
        raise ModelLoadError(f"{os.fspath(path)} is a folder without {DIFFUSERS[0][0]}", engine="sd")
    return TensorFile("diffusers", tensors)


def _safetensors(file: BinaryIO, size: int) -> TensorFile:
    length = int.from_bytes(file.read(8), "little")
    if length > MAX_HEADER:
        raise ValueError(f"its header has {length} bytes")
    header = json.loads(file.read(length))
    metadata = header.pop("__metadata__", None) or {}
    tensors = {}
    for name, info in header.items():
        end = info["data_offsets"][1]
        if 8 + length + end > size:
            raise ValueError(f"the tensor {name!r} ends at byte {8 + length + end}, the file at byte {size}")
        tensors[name] = tuple(int(n) for n in reversed(info["shape"]))
    return TensorFile("safetensors", tensors, {str(key): str(value) for key, value in metadata.items()})


def _gguf(file: BinaryIO, metadata: dict[str, str]) -> Iterator[tuple[str, Shape]]:
    def number(kind: str) -> int:
        return int(struct.unpack("<" + kind, file.read(struct.calcsize(kind)))[0])

    def counted(kind: str, what: str, most: int) -> int:
        n = number(kind)
        if n > most:
            raise ValueError(f"it has {n} {what}")
        return n

    def text() -> str:
        return file.read(counted("Q", "bytes in a name", MAX_HEADER)).decode("utf-8", "replace")

    def skip(kind: int) -> None:
        if kind == GGUF_STRING:
            file.seek(counted("Q", "bytes in a string", MAX_HEADER), os.SEEK_CUR)
        elif kind == GGUF_ARRAY:
            inner, n = number("I"), counted("Q", "values in an array", MAX_COUNT)
            if inner in GGUF_SIZES:
                file.seek(n * GGUF_SIZES[inner], os.SEEK_CUR)
            else:
                for _ in range(n):
                    skip(inner)
        else:
            file.seek(GGUF_SIZES[kind], os.SEEK_CUR)

    file.seek(8)  # magic and version
    tensors, pairs = counted("Q", "tensors", MAX_COUNT), counted("Q", "pairs of metadata", MAX_COUNT)
    for _ in range(pairs):
        key, kind = text(), number("I")
        if kind == GGUF_STRING:
            metadata[key] = text()
        else:
            skip(kind)
    for _ in range(tensors):
        name = text()
        shape = tuple(number("Q") for _ in range(counted("I", "dimensions", 8)))
        number("I"), number("Q")  # type and offset
        yield name, shape
