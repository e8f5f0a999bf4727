"""Encoded images from anybody: no other program runs, and nothing is decoded before its size is known."""

from __future__ import annotations

import contextlib
import functools
import io
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageFile
from starlette.exceptions import HTTPException

from cyllama.errors import CyllamaError, MediaError
from cyllama.llava._checks import check_encoded
from cyllama.media.image import to_mask, to_pixels
from cyllama.sd import read_parameters
from cyllama.server.image_jobs import check_image, read_image
from cyllama.server.limits import Limits
from cyllama.server.routes.images import _read_mask

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n0 0 8 8 rectfill\nshowpage\n%%EOF\n"


@functools.cache
def png(width: int, height: int) -> bytes:
    """Return a PNG file of zeros, without its pixels in memory."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    compressor, packed = zlib.compressobj(9), b""
    for _ in range(height):
        packed += compressor.compress(bytes(width + 1))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", packed + compressor.flush()) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def ico(image: bytes) -> bytes:
    """Return an ICO file that declares 16x16 pixels for an image."""
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(image), 22) + image


def on_disk(function: Callable[[Path], object], folder: Path) -> Callable[[bytes], object]:
    def call(data: bytes) -> object:
        path = folder / "file"
        path.write_bytes(data)
        return function(path)

    return call


ENTRANCES = {
    "pixels": lambda folder: to_pixels,
    "pixels of a file": lambda folder: on_disk(to_pixels, folder),
    "mask": lambda folder: lambda data: to_mask(data, (16, 16)),
    "multimodal": lambda folder: lambda data: check_encoded(data, None),
    "metadata": lambda folder: on_disk(read_parameters, folder),
    "server": lambda folder: lambda data: check_image(data, Limits().pixels, "image"),
    "image of a request": lambda folder: lambda data: read_image(data, Limits(), "image"),
    "mask of an edit": lambda folder: lambda data: _read_mask(data, Limits()),
}


@pytest.fixture(params=ENTRANCES)
def entrance(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[bytes], object]:
    return ENTRANCES[request.param](tmp_path)


def test_no_program_runs_for_eps(entrance: Callable[[bytes], object], monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setattr(subprocess, "Popen", lambda *arguments, **_: started.append(arguments))
    monkeypatch.setattr("PIL.EpsImagePlugin.has_ghostscript", lambda: True)
    with contextlib.suppress(CyllamaError, HTTPException, ValueError):
        entrance(EPS)
    assert started == []


def test_large_image_in_an_icon_is_not_decoded(
    entrance: Callable[[bytes], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = ico(png(13_000, 13_000))
    assert len(data) < 1_000_000
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises((ValueError, CyllamaError, HTTPException)):
        entrance(data)


def test_small_icons_are_images() -> None:
    out = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(out, format="ICO", sizes=[(32, 32)])
    assert to_pixels(out.getvalue()).shape == (32, 32, 3)


@pytest.mark.parametrize("data", [EPS, b"icns" + bytes(64), b"\0\0\1\0\xff\xff" + bytes(40)])
def test_unsupported_and_damaged_files_are_errors(data: bytes) -> None:
    with pytest.raises(MediaError):
        to_pixels(data)
