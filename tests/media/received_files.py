"""Files that a client may send as an image, built in memory: formats, modes, orientations, bombs and other kinds."""

from __future__ import annotations

import functools
import io
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image

__all__ = ["IMAGES", "ORIENTATIONS", "OTHERS", "TOO_LARGE", "encoded", "oriented", "photo", "png_header"]

WIDTH, HEIGHT = 48, 32


@functools.cache
def photo() -> np.ndarray:
    """Return pixels with four colours: red, green, blue and gray, from the top left by rows."""
    pixels = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    pixels[:16, :24], pixels[:16, 24:] = (220, 30, 30), (30, 200, 40)
    pixels[16:, :24], pixels[16:, 24:] = (40, 50, 210), (120, 120, 120)
    return pixels


def encoded(kind: str, mode: str = "RGB", **options: object) -> bytes:
    """Return the photo as a file."""
    image = Image.fromarray(photo())
    if mode == "I;16":
        image = Image.fromarray(photo()[..., 0].astype(np.uint16) * 257)
    elif mode == "F":
        image = image.convert("L").convert("F")
    elif mode in ("P", "PA"):
        image = image.convert("RGBA" if mode == "PA" else "RGB").quantize(16)
    else:
        image = image.convert(mode)
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def oriented(kind: str, orientation: int) -> bytes:
    """Return a file that shows the photo only when its EXIF orientation is applied."""
    undo = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]  # numbers of Image.Transpose
    image = Image.fromarray(photo())
    image = image if undo is None else image.transpose(Image.Transpose(undo))
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(kind, {})
    image.save(out, kind, exif=exif, **options)
    return out.getvalue()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int, *more: bytes) -> bytes:
    """Return a PNG file that declares a size and has few pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = _chunk(b"IHDR", header) + b"".join(more) + _chunk(b"IDAT", zlib.compress(bytes(4096)))
    return b"\x89PNG\r\n\x1a\n" + body + _chunk(b"IEND", b"")


def _jpeg_of_size(width: int, height: int) -> bytes:
    data = bytearray(encoded("JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def _webp_of_size(width: int, height: int) -> bytes:
    data = bytearray(encoded("WEBP", "RGBA", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"))
    assert data[12:16] == b"VP8X"
    data[24:30] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(data)


def _gif_of_size(width: int, height: int) -> bytes:
    data = bytearray(encoded("GIF", "P"))
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def _bmp_of_size(width: int, height: int) -> bytes:
    data = bytearray(encoded("BMP"))
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def _ico(image: bytes) -> bytes:
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(image), 22) + image


def _tiff_of_size(width: int, height: int) -> bytes:
    data = bytearray(encoded("TIFF"))
    first = int.from_bytes(data[4:8], "little")
    for at in range(first + 2, first + 2 + 12 * int.from_bytes(data[first : first + 2], "little"), 12):
        tag = int.from_bytes(data[at : at + 2], "little")
        if tag in (256, 257):
            data[at + 2 : at + 12] = struct.pack("<HII", 4, 1, width if tag == 256 else height)
    return bytes(data)


def _animation(kind: str) -> bytes:
    frames = [Image.fromarray(np.roll(photo(), 8 * i, axis=1)) for i in range(3)]
    out = io.BytesIO()
    frames[0].save(out, kind, save_all=True, append_images=frames[1:])
    return out.getvalue()


def _camera_file() -> bytes:
    out = io.BytesIO()
    image = Image.fromarray(photo())
    image.save(out, "MPO", save_all=True, append_images=[image.resize((12, 8))], quality=95, subsampling=0)
    return out.getvalue()


def _ftyp(brand: bytes) -> bytes:
    return struct.pack(">I", 24) + b"ftyp" + brand + bytes(4) + b"mif1" + brand + bytes(200)


MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16")
FORMATS = {
    "JPEG": ("L", "RGB", "CMYK"),
    "PNG": MODES,
    "WEBP": ("RGB", "RGBA"),
    "GIF": ("P", "L"),
    "BMP": ("1", "L", "P", "RGB"),
    "TIFF": ("1", "L", "RGB", "RGBA", "CMYK", "I;16", "F"),
    "PPM": ("L", "RGB"),
    "TGA": ("RGB", "RGBA"),
    "AVIF": ("RGB",),
    "JPEG2000": ("RGB",),
    "ICO": ("RGBA",),
}
SAVING = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 90},
    "ICO": {"sizes": [(WIDTH, HEIGHT)]},
}


def _images() -> Iterator[tuple[str, Callable[[], bytes]]]:
    for kind, modes in FORMATS.items():
        for mode in modes:
            yield f"{kind} {mode}", functools.partial(encoded, kind, mode, **SAVING.get(kind, {}))
    for name, options in {
        "progressive JPEG": {"progressive": True, "quality": 95, "subsampling": 0},
        "JPEG with a profile": {"quality": 95, "subsampling": 0, "icc_profile": bytes(500)},
    }.items():
        yield name, functools.partial(encoded, "JPEG", **options)
    yield "TIFF in LZW", functools.partial(encoded, "TIFF", compression="tiff_lzw")
    yield "camera file with a preview", _camera_file
    yield "PNG with data behind its end", lambda: encoded("PNG") + bytes(1000)


IMAGES: dict[str, Callable[[], bytes]] = dict(_images())
"""Files that are read."""
ORIENTATIONS = {
    f"{kind} {number}": functools.partial(oriented, kind, number)
    for kind in ("JPEG", "PNG", "WEBP", "TIFF")
    for number in range(1, 9)
}
"""Files with an EXIF orientation."""
TOO_LARGE: dict[str, Callable[[], bytes]] = {
    "PNG of 3.6 gigapixels": lambda: png_header(60_000, 60_000),
    "PNG above the limit": lambda: png_header(8000, 6300),
    "JPEG of 4.2 gigapixels": lambda: _jpeg_of_size(65_000, 65_000),
    "WebP of 256 megapixels": lambda: _webp_of_size(16_000, 16_000),
    "GIF of 4 gigapixels": lambda: _gif_of_size(65_000, 65_000),
    "BMP of 400 megapixels": lambda: _bmp_of_size(20_000, 20_000),
    "TIFF of 10 gigapixels": lambda: _tiff_of_size(100_000, 100_000),
    "ICO with a PNG of 3.6 gigapixels": lambda: _ico(png_header(60_000, 60_000)),
    "PPM of 1.6 gigapixels": lambda: b"P6\n40000 40000\n255\n" + bytes(100),
}
"""Files that declare more pixels than are allowed."""
OTHERS: dict[str, tuple[Callable[[], bytes], str]] = {
    "SVG": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", "SVG"),
    "SVG with a declaration": (lambda: b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- x -->\n<svg/>", "SVG"),
    "PDF": (lambda: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + bytes(99), "PDF"),
    "EPS": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n%%EOF\n", "PostScript"),
    "HTML": (lambda: b"\n<!DOCTYPE html><html><body>404 Not Found</body></html>", "HTML"),
    "XML": (lambda: b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "XML"),
    "JSON": (lambda: b'{"error": "not found"}', "JSON"),
    "URL": (lambda: b"http://127.0.0.1:1/a.png", "URL"),
    "base64 twice": (lambda: b"iVBORw0KGgoAAAANSUhEUgAAAAE=", "base64"),
    "data URL twice": (lambda: b"data:image/png;base64,iVBORw0KGgo=", "data URL"),
    "text": (lambda: b"hello world", "text"),
    "pointer of Git LFS": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
    "HEIC": (lambda: _ftyp(b"heic"), "HEIC"),
    "MP4": (lambda: _ftyp(b"isom"), "MP4"),
    "QuickTime": (lambda: _ftyp(b"qt  "), "QuickTime"),
    "WebM": (lambda: b"\x1aE\xdf\xa3" + bytes(99), "WebM"),
    "AVI": (lambda: b"RIFF\xff\0\0\0AVI LIST" + bytes(300), "AVI"),
    "WAV": (lambda: b"RIFF\x64\0\0\0WAVEfmt " + bytes(99), "WAV"),
    "MP3": (lambda: b"ID3\x04" + bytes(99), "MP3"),
    "ZIP": (lambda: b"PK\x03\x04" + bytes(99), "ZIP"),
    "gzip": (lambda: b"\x1f\x8b\x08" + bytes(99), "gzip"),
    "ICNS": (lambda: b"icns" + bytes(64), "ICNS"),
    "GGUF": (lambda: b"GGUF\3\0\0\0" + bytes(64), "GGUF"),
    "nothing": (lambda: b"", "empty"),
    "zeros": (lambda: bytes(100), "image"),
    "truncated PNG": (lambda: encoded("PNG", "RGB")[:-40], "truncated"),
    "truncated JPEG": (lambda: encoded("JPEG")[:-200], "truncated"),
    "truncated GIF": (lambda: encoded("GIF", "P")[:-30], "truncated"),
    "truncated WebP": (lambda: encoded("WEBP")[:-20], "truncated"),
    "truncated BMP": (lambda: encoded("BMP")[:-900], "truncated"),
    "PNG without pixels": (lambda: encoded("PNG")[:33], "truncated"),
    "PNG with a wrong checksum": (lambda: encoded("PNG").replace(b"IDAT", b"IDAT\xff", 1), "image"),
    "animated GIF": (lambda: _animation("GIF"), "3 images"),
    "animated PNG": (lambda: _animation("PNG"), "3 images"),
    "animated WebP": (lambda: _animation("WEBP"), "3 images"),
    "TIFF of several pages": (lambda: _animation("TIFF"), "3 images"),
    "PNG with a text bomb": (
        lambda: png_header(8, 8, _chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 26)))),
        "image",
    ),
}
"""Files that are no single image, and a word of the error."""
