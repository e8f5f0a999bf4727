"""Images and files for these tests."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from cyllama.llama import GGUFContext

Pixels = npt.NDArray[np.uint8]
COLOURS = {"red": (220, 30, 30), "blue": (30, 60, 220), "green": (20, 160, 60), "yellow": (240, 220, 40)}


def shape(name: str = "circle", colour: str = "red", size: int = 224, background: Any = "white") -> Image.Image:
    """Return an image with a coloured shape in the middle."""
    image = Image.new("RGB", (size, size), background)
    draw = ImageDraw.Draw(image)
    low, high, middle = size // 5, size * 4 // 5, size // 2
    if name == "circle":
        draw.ellipse((low, low, high, high), COLOURS[colour])
    elif name == "square":
        draw.rectangle((low, low, high, high), COLOURS[colour])
    else:
        draw.polygon([(middle, low), (low, high), (high, high)], COLOURS[colour])
    return image


def pixels(*arguments: Any, **more: Any) -> Pixels:
    """Return the same image as an array."""
    return np.asarray(shape(*arguments, **more))


def encoded(image: Image.Image, kind: str = "PNG", **more: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **more)
    return out.getvalue()


def png(width: int, height: int) -> bytes:
    """Return a PNG with a header of any size and hardly any data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def changed(
    source: Path,
    target: Path,
    change: Callable[[GGUFContext], object] = lambda file: None,
    without: tuple[str, ...] = (),
) -> Path:
    """Write a copy of a GGUF file with other metadata and without some tensors."""
    with GGUFContext.from_file(source) as old, GGUFContext.empty() as new:
        new.copy_from(old)
        change(new)
        for tensor in old.tensors():
            if tensor.name not in without:
                new.add_tensor(tensor.name, old.tensor_data(tensor.name))
        new.write(target)
    return target


class After:
    """A cancel object that is set from its n-th check on."""

    def __init__(self, n: int) -> None:
        self.n = n

    def is_set(self) -> bool:
        self.n -= 1
        return self.n < 0


def name_audio_token(file: GGUFContext) -> None:
    """Give the last token of a vocabulary the name of the one that begins the audio."""
    tokens = list(file["tokenizer.ggml.tokens"])
    tokens[-1] = "<|audio_bos|>"
    file.set("tokenizer.ggml.tokens", tokens, "arr[str]")
