"""Checkpoints of diffusion models: safetensors, GGUF, pickle."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator

import numpy as np

from cyllama import sd
from cyllama.errors import EngineError
from fuzz.model_files import gguf_seeds
from fuzz.target import Target, documented
from fuzz.tiny_model import temporary_path

__all__ = ["TARGETS"]


def checkpoint_seeds() -> Iterator[bytes]:
    """Yield files with tensors of Stable Diffusion in each format that the engine reads."""
    names = {"model.diffusion_model.input_blocks.0.0.weight": (4, 2), "cond_stage_model.a": (2,)}
    header, at = {}, 0
    for name, shape in names.items():
        size = 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    yield struct.pack("<Q", len(text)) + text + bytes(at)
    yield from gguf_seeds()
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", compression) as archive:
            archive.writestr("archive/data.pkl", _pickled(names))
            for i, shape in enumerate(names.values()):
                archive.writestr(f"archive/data/{i}", bytes(4 * int(np.prod(shape))))
            archive.writestr("archive/version", b"3\n")
        yield file.getvalue()
    magic = 0x1950A86A20F9469CFC6C
    parts = [pickle.dumps(value, 2) for value in (magic, 1001, {"protocol_version": 1001, "little_endian": True})]
    yield b"".join(parts) + _pickled(names) + pickle.dumps([str(i) for i in range(len(names))], 2) + bytes(64)
    yield _pickled(names)


def _pickled(names: dict[str, tuple[int, ...]]) -> bytes:
    """Return the pickle of torch.save for a mapping of tensors, written by hand: torch is not installed."""

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    found = b"\x80\x02}("
    for i, (name, shape) in enumerate(names.items()):
        sizes = b"".join(b"K" + bytes([n]) for n in shape)
        storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(str(i)) + text("cpu")
        storage += b"K" + bytes([int(np.prod(shape))]) + b"tQ"
        found += text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\0"
        found += b"(" + sizes + b"t(" + b"K\1" * len(shape) + b"t\x89ccollections\nOrderedDict\n)RtR"
    return found + b"u."


def read_checkpoint() -> Callable[[bytes], None]:
    """Return a function that reads the header of a checkpoint, converts it, and loads it."""
    path, output = temporary_path("model.ckpt"), temporary_path("converted.gguf")

    def read(data: bytes) -> None:
        path.write_bytes(data)
        with documented(EngineError):
            sd.detect(path)
        with documented(EngineError):
            sd.convert(path, output)
        with documented(EngineError):
            sd.SDContext(sd.SDContextParams(model_path=path)).close()

    return read


TARGETS = {"checkpoint": Target(read_checkpoint, checkpoint_seeds)}
