"""Conversion of images: Pillow images, files, bytes and arrays to 8-bit pixels, and back.

Transparency is composed on white. Files are rotated by their EXIF orientation. CMYK becomes RGB without its colour
profile. Images that are too large are rejected by their header, before they are decoded. Files with several images,
such as animated GIFs, are rejected. A Pillow image is its current frame.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from cyllama.errors import MediaError
from cyllama.media.paths import checked_path

__all__ = [
    "MAX_BYTES",
    "MAX_PIXELS",
    "ImageSource",
    "Pixels",
    "check_icon",
    "fitted",
    "open_image",
    "to_mask",
    "to_pil",
    "to_pixels",
    "to_pixels_list",
]

Pixels = npt.NDArray[np.uint8]
Array = npt.NDArray[Any]
ImageSource = Image.Image | str | os.PathLike[str] | bytes | IO[bytes] | Array

EXPECTED = "a Pillow image, a path, the bytes of a file, a binary file or an array"
MAX_PIXELS = 50_000_000
MAX_BYTES = 256 << 20  # of a file
# Formats whose first image is complete; the others in the file are previews or layers.
FIRST_IS_WHOLE = ("MPO", "PSD")
# Formats that Pillow reads with another program, and containers whose images it decodes without looking at their size.
REJECTED_FORMATS = frozenset(("EPS", "ICNS", "IPTC", "FPX", "MIC"))
ICON = (b"\0\0\1\0", b"\0\0\2\0")  # ICO and CUR files begin with it
ICON_ENTRY = 16  # bytes
PNG_MARK = b"\x89PNG\r\n\x1a\n"
ORIENTATION = 0x0112  # of EXIF; 1 is upright
PLANES = (1, 3, 4)  # gray, colour, colour and alpha, where channels come first
CHANNELS = (1, 2, 3, 4)
RANGE_SLACK = 1e-3  # what rounding may add to numbers from 0 to 1
BLOCK = 1 << 17  # numbers
BAND = 1 << 18  # bytes; Pillow copies what is larger block by block, which takes five times as long


def to_pixels(
    image: Any, name: str = "image", *, max_pixels: int | None = MAX_PIXELS, max_bytes: int | None = MAX_BYTES
) -> Pixels:
    """Convert an image to RGB pixels.

    Parameters
    ----------
    image : PIL.Image.Image, path, bytes, binary file object or array
        A Pillow image of any mode, a file that Pillow reads, its content, a file object (read from its position), or
        an array (NumPy, torch, anything with
        ``__array__`` or ``__array_interface__``) of shape (height, width), (height, width, channels) or
        (channels, height, width), with a leading 1 or without, of 1 to 4 channels: gray, gray and alpha, colour, colour
        and alpha. uint8 is 0 to 255, uint16 is 0 to 65,535, other integers are 0 to 255, floats are 0 to 1.
    name : str
        The name of the value in messages.
    max_pixels : int or None
        Limit of width times height; None: only Pillow's, ``PIL.Image.MAX_IMAGE_PIXELS``.
    max_bytes : int or None
        Limit of the size of a file; None: no limit.

    Returns
    -------
    ndarray, shape (height, width, 3), uint8
        C-contiguous; may share the memory of an array argument.

    Raises
    ------
    TypeError
        `image` has another type.
    ValueError
        An array has another shape or values out of range; an image has no pixels, or is above a limit.
    MediaError
        A file is not an image, damaged, or animated.
    FileNotFoundError, IsADirectoryError, PermissionError
    """
    array = _array(image, name, max_pixels, max_bytes)
    alpha = array[..., -1:] if array.shape[2] in (2, 4) else None
    colour = array[..., : 1 if array.shape[2] < 3 else 3]
    if alpha is not None and not (alpha == 255).all():
        colour = _on_white(colour, alpha)
    if colour.shape[2] == 1:
        colour = np.broadcast_to(colour, (*colour.shape[:2], 3))
    return np.ascontiguousarray(colour)


def to_pixels_list(images: Any, name: str = "images", **limits: int | None) -> list[Pixels]:
    """Convert an image or several, each as `to_pixels`.

    Parameters
    ----------
    images : image, sequence of images, or array of shape (count, height, width, channels)
    name : str
    **limits
        ``max_pixels`` and ``max_bytes`` of each image.

    Returns
    -------
    list of ndarray
    """
    if isinstance(images, np.ndarray) and images.ndim == 4:
        images = list(images)
    if isinstance(images, Sequence) and not isinstance(images, str | bytes | bytearray | memoryview):
        return [to_pixels(image, f"{name}[{i}]", **limits) for i, image in enumerate(images)]
    if isinstance(images, Iterable) and not _is_image(images):
        return to_pixels_list(list(images), name, **limits)
    return [to_pixels(images, name, **limits)]


def to_mask(
    image: Any, name: str = "mask_image", *, max_pixels: int | None = MAX_PIXELS, max_bytes: int | None = MAX_BYTES
) -> Pixels:
    """Convert an image to a mask: white is 255, black is 0; colours become their brightness, transparency black.

    Parameters and errors are those of `to_pixels`.

    Returns
    -------
    ndarray, shape (height, width), uint8
    """
    array = _array(image, name, max_pixels, max_bytes)
    if array.shape[2] == 1:
        return np.ascontiguousarray(array[..., 0])
    if array.shape[2] == 2:
        gray = array[..., 0]
    else:
        gray = np.asarray(Image.fromarray(np.ascontiguousarray(array[..., :3])).convert("L"))
    if array.shape[2] in (2, 4):
        gray = (gray.astype(np.uint16) * array[..., -1] // 255).astype(np.uint8)
    return np.ascontiguousarray(gray)


def to_pil(pixels: Pixels) -> Image.Image:
    """Return a Pillow image (RGB, or L for a mask) of uint8 pixels."""
    return Image.fromarray(pixels)


def fitted(pixels: Pixels, width: int, height: int) -> Pixels:
    """Resize pixels until they cover a size, then crop them at the centre.

    Parameters
    ----------
    pixels : ndarray, shape (height, width, 3) or (height, width), uint8
    width, height : int
        In pixels.

    Returns
    -------
    ndarray, uint8
        The argument itself if it has that size.

    Notes
    -----
    Lanczos; masks use the nearest pixel, so that they stay black and white.
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    method = Image.Resampling.NEAREST if pixels.ndim == 2 else Image.Resampling.LANCZOS
    return np.ascontiguousarray(ImageOps.fit(Image.fromarray(pixels), (width, height), method))


def _is_image(value: Any) -> bool:
    kinds = (Image.Image, np.ndarray, str, bytes, bytearray, memoryview, os.PathLike)
    return isinstance(value, kinds) or any(
        hasattr(value, name) for name in ("read", "__array__", "__array_interface__")
    )


def _array(image: Any, name: str, max_pixels: int | None, max_bytes: int | None) -> Pixels:
    """Return pixels of shape (height, width, 1 to 4), uint8."""
    if isinstance(image, Image.Image):
        _check_size(image.size, name, max_pixels)
        array = _composed(image, name, max_pixels)
    elif isinstance(image, str | os.PathLike):
        path, name = checked_path(image, name, "image"), f"{name} ({os.fspath(image)!s})"
        with open(path, "rb") as file:
            array = _decoded(_content(file, name, max_bytes), name, max_pixels)
    elif isinstance(image, bytes | bytearray | memoryview):
        _check_bytes(memoryview(image).nbytes, name, max_bytes)
        array = _decoded(io.BytesIO(image), name, max_pixels)
    elif callable(getattr(image, "read", None)):
        array = _decoded(_content(image, name, max_bytes), name, max_pixels)
    else:
        array = _from_array(image, name)
        _check_size((array.shape[1], array.shape[0]), name, max_pixels)
    if not array.size:
        raise ValueError(f"{name} has {array.shape[1]}x{array.shape[0]} pixels, expected at least one")
    return array


def _content(file: Any, name: str, max_bytes: int | None) -> io.BytesIO:
    """Read a file from its position, at most one byte more than the limit."""
    out = io.BytesIO()
    while max_bytes is None or out.tell() <= max_bytes:
        part = file.read(1 << 20 if max_bytes is None else min(1 << 20, max_bytes + 1 - out.tell()))
        if not isinstance(part, bytes | bytearray | memoryview):
            raise TypeError(f"{name} gave {type(part).__name__}, expected bytes; open it in binary mode ('rb')")
        if not part:
            break
        out.write(part)
    _check_bytes(out.tell(), name, max_bytes)
    out.seek(0)
    return out


def _check_bytes(n: int, name: str, max_bytes: int | None) -> None:
    if max_bytes is not None and n > max_bytes:
        raise ValueError(f"{name} has more than {max_bytes:,} bytes (max_bytes)")


def _check_size(size: tuple[int, int], name: str, max_pixels: int | None) -> None:
    width, height = size
    if max_pixels is not None and width * height > max_pixels:
        raise ValueError(
            f"{name} has {width}x{height} = {width * height:,} pixels, more than {max_pixels:,} (max_pixels)"
        )


def open_image(file: IO[bytes]) -> Image.Image:
    """Open an encoded image, which Pillow decodes later; see `check_icon` for the exception.

    Raises
    ------
    OSError, SyntaxError, ...
        Pillow's readers raise many types for damaged files, and UnidentifiedImageError for unsupported formats. Formats
        that run another program (EPS) are not supported.
    """
    Image.init()
    return Image.open(file, formats=[kind for kind in Image.ID if kind not in REJECTED_FORMATS])


def check_icon(file: IO[bytes], name: str, max_pixels: int | None = MAX_PIXELS) -> None:
    """Check the sizes of the images in an ICO or CUR file, which Pillow decodes while it opens the file.

    Parameters
    ----------
    file : binary file
        Of any format; it is left at its begin.
    name : str
        The name of the value in messages.
    max_pixels : int or None
        Limit of width times height.

    Raises
    ------
    ValueError
        An image is too large, by its own header.
    """
    head = file.read(6)
    if head[:4] in ICON:
        entries = file.read(ICON_ENTRY * int.from_bytes(head[4:6], "little"))
        for at in range(0, len(entries) - ICON_ENTRY + 1, ICON_ENTRY):
            file.seek(int.from_bytes(entries[at + 12 : at + 16], "little"))
            image = file.read(24)
            if image.startswith(PNG_MARK):
                size = int.from_bytes(image[16:20], "big"), int.from_bytes(image[20:24], "big")
            else:
                size = int.from_bytes(image[4:8], "little"), int.from_bytes(image[8:12], "little") // 2
            _check_size(size, name, max_pixels)
    file.seek(0)


def _decoded(file: io.BytesIO, name: str, max_pixels: int | None) -> Pixels:
    check_icon(file, name, max_pixels)
    with _reading(name, max_pixels):
        image = open_image(file)
    with image:
        _check_size(image.size, name, max_pixels)
        with _reading(name, max_pixels):
            several = getattr(image, "is_animated", False) and image.format not in FIRST_IS_WHOLE
            count = getattr(image, "n_frames", "several") if several else 1  # reads the other images
        if several:
            raise MediaError(f"{name} has {count} images, expected one; open it with Pillow and seek() the image")
        return _composed(image, name, max_pixels)


def _composed(image: Image.Image, name: str, max_pixels: int | None) -> Pixels:
    """Decode an image and apply its EXIF orientation."""
    with _reading(name, max_pixels):
        image.load()
        if image.getexif().get(ORIENTATION, 1) != 1:
            image = ImageOps.exif_transpose(image)
    return _from_pil(image, name)


@contextlib.contextmanager
def _reading(name: str, max_pixels: int | None) -> Iterator[None]:
    """Raise MediaError for every error of a format's reader, which can have any type."""
    try:
        yield
    except MemoryError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        found = re.search(r"\((\d+) pixels\)", str(error))
        if max_pixels is None or found is None:
            raise ValueError(f"{name} is too large: {error}") from None
        raise ValueError(f"{name} has {int(found[1]):,} pixels, more than {max_pixels:,} (max_pixels)") from None
    except Exception as error:
        text = str(error).split("<_io")[0].strip().rstrip(",") or type(error).__name__
        raise MediaError(f"cannot read {name} as an image: {text}") from error


def _from_pil(image: Image.Image, name: str) -> Pixels:
    mode = image.mode
    if mode.startswith("I;16"):
        return _to_8_bits(np.asarray(image).astype(np.uint16), name)[..., np.newaxis]
    if mode == "I":  # Pillow's way to hold 16 bits
        wide = np.asarray(image)
        if wide.size and (wide.min() < 0 or wide.max() > 65535):
            raise ValueError(f"{name} has values from {wide.min()} to {wide.max()}, expected 0 to 65535")
        return _to_8_bits(wide.astype(np.uint16), name)[..., np.newaxis]
    if mode == "F":  # Pillow's floats are 0 to 255
        return _to_8_bits(np.asarray(image) / 255, name)[..., np.newaxis]
    if mode in ("1", "L") and "transparency" not in image.info:
        return np.asarray(image.convert("L"))[..., np.newaxis]
    if image.has_transparency_data:
        return _copied(image.convert("RGBA"))
    return _copied(image if mode == "RGB" else image.convert("RGB"))


def _copied(image: Image.Image) -> Pixels:
    width, height, channels = *image.size, len(image.getbands())
    pixels = np.empty((height, width, channels), np.uint8)
    rows = max(1, BAND // max(1, width * channels))
    for y in range(0, height, rows):
        pixels[y : y + rows] = np.asarray(image.crop((0, y, width, min(y + rows, height))))
    return pixels


def _from_array(image: Any, name: str) -> Pixels:
    if not (isinstance(image, np.ndarray) or hasattr(image, "__array__") or hasattr(image, "__array_interface__")):
        raise TypeError(f"{name} is {type(image).__name__}, expected {EXPECTED}")
    try:
        array = np.asarray(image)
    except Exception as error:  # a tensor on another device, or one that needs a gradient
        raise TypeError(f"{name} cannot become an array: {error}") from error
    shape = array.shape
    while array.ndim > 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim == 2:
        array = array[..., np.newaxis]
    elif array.ndim == 3 and array.shape[2] not in CHANNELS and array.shape[0] in PLANES:
        return _interleaved(_to_8_bits(array, name))
    if array.ndim != 3 or array.shape[2] not in CHANNELS:
        raise ValueError(
            f"{name} has shape {shape}, expected (height, width), (height, width, 1 to 4) or (1, 3 or 4, height, width)"
        )
    return _to_8_bits(array, name)


def _to_8_bits(array: Array, name: str) -> Pixels:
    """The numbers of an array as 0 to 255, by their type."""
    kind = array.dtype.kind
    if array.dtype == np.uint8:
        return cast(Pixels, array)
    if kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint16:
        return _scaled(array, 1 / 257, 65535, 0, name)
    if kind == "f":
        return _scaled(array, 255, 1, RANGE_SLACK, name)
    if kind not in "iu":
        raise ValueError(f"{name} has dtype {array.dtype}, expected integers, floats or booleans")
    _check_range(array, array, 255, 0, name)
    return array.astype(np.uint8)


def _scaled(array: Array, factor: float, high: float, slack: float, name: str) -> Pixels:
    """Numbers from 0 to `high` times `factor`, rounded; in blocks that stay in the processor's cache."""
    if array.flags.c_contiguous and array.ndim == 3 and array.size:  # planes are cut into rows as well
        flat = array.reshape(-1, array.shape[2])
        return _scaled(flat, factor, high, slack, name).reshape(array.shape)
    out = np.empty(array.shape, np.uint8)
    rows = max(1, BLOCK // max(1, out[:1].size))
    wide = np.empty((rows, *array.shape[1:]), np.float32)
    for y in range(0, len(array), rows):
        block, numbers = array[y : y + rows], wide[: len(array) - y]
        least, most = _check_range(block, array, high, slack, name)
        np.multiply(block, np.float32(factor), out=numbers, casting="unsafe", dtype=np.float32)
        if least < 0 or most > high:
            np.clip(numbers, 0, 255, out=numbers)
        np.copyto(out[y : y + rows], np.rint(numbers, out=numbers), casting="unsafe")
    return out


def _check_range(block: Array, array: Array, high: float, slack: float, name: str) -> tuple[Any, Any]:
    """The least and the greatest number of a block of an array."""
    if not block.size:
        return 0, 0
    least, most = block.min(), block.max()
    if not (-slack <= least and most <= high + slack):  # NaN as well
        raise ValueError(
            f"{name} has values from {array.min()} to {array.max()}, expected 0 to {high:g} for {array.dtype}"
        )
    return least, most


def _interleaved(planes: Pixels) -> Pixels:
    """(channels, height, width) as (height, width, channels): plane by plane, which NumPy's own copy is not."""
    out = np.empty((*planes.shape[1:], len(planes)), np.uint8)
    for i, plane in enumerate(planes):
        out[..., i] = plane
    return out


def _on_white(colour: Array, alpha: Array) -> Pixels:
    wide = colour.astype(np.uint16) * alpha + 255 * (255 - alpha.astype(np.uint16))
    return ((wide + 127) // 255).astype(np.uint8)
