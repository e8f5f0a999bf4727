"""Conversion of images: Pillow images, files, bytes and arrays to 8-bit pixels, and back.

Transparency is composed on white. Files are rotated by their EXIF orientation. CMYK becomes RGB without its colour
profile. Images that are too large are rejected by their header, before they are decoded. Files with several images,
such as animated GIFs, are rejected. A Pillow image is its current frame.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from typing import IO, Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from cyllama.media.encoded import decode_base64, is_data_url
from cyllama.media.image_file import MAX_PIXELS, check_size, load_image, prepared
from cyllama.media.paths import checked_path

__all__ = [
    "MAX_BYTES",
    "MAX_PIXELS",
    "ImageSource",
    "Pixels",
    "fitted",
    "to_alpha",
    "to_layers",
    "to_mask",
    "to_pil",
    "to_pixels",
    "to_pixels_list",
]

Pixels = npt.NDArray[np.uint8]
Array = npt.NDArray[Any]
ImageSource = Image.Image | str | os.PathLike[str] | bytes | IO[bytes] | Array

EXPECTED = "a Pillow image, a path, the bytes of a file, a binary file or an array"
MAX_BYTES = 256 << 20  # of a file
PLANES = (1, 3, 4)  # gray, colour, colour and alpha, where channels come first
CHANNELS = (1, 2, 3, 4)
RANGE_SLACK = 1e-3  # what rounding may add to numbers from 0 to 1
BLOCK = 1 << 17  # numbers
BAND = 1 << 18  # bytes; Pillow copies what is larger block by block, which takes five times as long


class _Limits(NamedTuple):
    max_pixels: int | None
    max_bytes: int | None
    reduce_to: int | None


def to_pixels(
    image: Any,
    name: str = "image",
    *,
    max_pixels: int | None = MAX_PIXELS,
    max_bytes: int | None = MAX_BYTES,
    reduce_to: int | None = None,
) -> Pixels:
    """Convert an image to RGB pixels.

    Parameters
    ----------
    image : PIL.Image.Image, path, data URL, bytes, binary file object or array
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
    reduce_to : int or None
        Reduce an image with more pixels to at most this number, with the same proportions; a JPEG file is reduced
        while it is decoded. None: never.

    Returns
    -------
    ndarray, shape (height, width, 3), uint8
        C-contiguous; may share the memory of an array argument.

    Raises
    ------
    TypeError
        `image` has another type.
    ValueError
        An array has another shape or values out of range; an image has no pixels, or is above a limit; a URL.
    MediaError
        A file is not an image, damaged, or animated.
    FileNotFoundError, IsADirectoryError, PermissionError
    """
    return _rgb(_array(image, name, _Limits(max_pixels, max_bytes, reduce_to)))


def to_pixels_list(images: Any, name: str = "images", **limits: int | None) -> list[Pixels]:
    """Convert an image or several, each as `to_pixels`.

    Parameters
    ----------
    images : image, sequence of images, or array of shape (count, height, width, channels)
    name : str
    **limits
        ``max_pixels``, ``max_bytes`` and ``reduce_to`` of each image.

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
    image: Any,
    name: str = "mask_image",
    *,
    max_pixels: int | None = MAX_PIXELS,
    max_bytes: int | None = MAX_BYTES,
    reduce_to: int | None = None,
) -> Pixels:
    """Convert an image to a mask: white is 255, black is 0; colours become their brightness, transparency black.

    In an image or array that has the values 0 and 1 only, 1 is white. Parameters and errors are those of `to_pixels`.

    Returns
    -------
    ndarray, shape (height, width), uint8
    """
    array = _array(image, name, _Limits(max_pixels, max_bytes, reduce_to))
    if array.max() == 1:
        array = array * np.uint8(255)
    if array.shape[2] == 1:
        return np.ascontiguousarray(array[..., 0])
    if array.shape[2] == 2:
        gray = array[..., 0]
    else:
        gray = np.asarray(Image.fromarray(np.ascontiguousarray(array[..., :3])).convert("L"))
    if array.shape[2] in (2, 4):
        gray = (gray.astype(np.uint16) * array[..., -1] // 255).astype(np.uint8)
    return np.ascontiguousarray(gray)


def to_alpha(
    image: Any,
    name: str = "image",
    *,
    max_pixels: int | None = MAX_PIXELS,
    max_bytes: int | None = MAX_BYTES,
    reduce_to: int | None = None,
) -> Pixels | None:
    """Return the opacity of an image: 0 is transparent, 255 is opaque; None if the image has no transparency.

    Parameters and errors are those of `to_pixels`.

    Returns
    -------
    ndarray or None, shape (height, width), uint8
    """
    return _alpha(_array(image, name, _Limits(max_pixels, max_bytes, reduce_to)))


def to_layers(
    image: Any,
    name: str = "image",
    *,
    max_pixels: int | None = MAX_PIXELS,
    max_bytes: int | None = MAX_BYTES,
    reduce_to: int | None = None,
) -> tuple[Pixels, Pixels | None]:
    """Return the pixels of an image, as `to_pixels`, and its opacity, as `to_alpha`; it is decoded once."""
    array = _array(image, name, _Limits(max_pixels, max_bytes, reduce_to))
    return _rgb(array), _alpha(array)


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


def _array(image: Any, name: str, limits: _Limits) -> Pixels:
    """Return pixels of shape (height, width, 1 to 4), uint8."""
    if isinstance(image, str) and is_data_url(image):
        image = decode_base64(image, name, max_bytes=limits.max_bytes)
    if isinstance(image, Image.Image):
        check_size(image.size, name, limits.max_pixels)
        array = _from_pil(prepared(image, name, limits.max_pixels, limits.reduce_to), name)
    elif isinstance(image, str | os.PathLike):
        path, name = checked_path(image, name, "image"), f"{name} ({os.fspath(image)!s})"
        with open(path, "rb") as file:
            array = _decoded(_content(file, name, limits.max_bytes), name, limits)
    elif isinstance(image, bytes | bytearray | memoryview):
        _check_bytes(memoryview(image).nbytes, name, limits.max_bytes)
        array = _decoded(io.BytesIO(image), name, limits)
    elif callable(getattr(image, "read", None)):
        array = _decoded(_content(image, name, limits.max_bytes), name, limits)
    else:
        array = _from_array(image, name)
        check_size((array.shape[1], array.shape[0]), name, limits.max_pixels)
        array = _reduced(array, name, limits)
    if not array.size:
        raise ValueError(f"{name} has {array.shape[1]}x{array.shape[0]} pixels, expected at least one")
    return array


def _decoded(file: io.BytesIO, name: str, limits: _Limits) -> Pixels:
    return _from_pil(load_image(file, name, limits.max_pixels, limits.reduce_to), name)


def _reduced(array: Pixels, name: str, limits: _Limits) -> Pixels:
    if limits.reduce_to is None or array.shape[0] * array.shape[1] <= limits.reduce_to:
        return array
    image = Image.fromarray(np.ascontiguousarray(array[..., 0] if array.shape[2] == 1 else array))
    return _from_pil(prepared(image, name, limits.max_pixels, limits.reduce_to), name)


def _alpha(array: Pixels) -> Pixels | None:
    return np.ascontiguousarray(array[..., -1]) if array.shape[2] in (2, 4) else None


def _rgb(array: Pixels) -> Pixels:
    """Return colours on white, of 3 channels."""
    alpha = array[..., -1:] if array.shape[2] in (2, 4) else None
    colour = array[..., : 1 if array.shape[2] < 3 else 3]
    if alpha is not None and not (alpha == 255).all():
        colour = _on_white(colour, alpha)
    if colour.shape[2] == 1:
        colour = np.broadcast_to(colour, (*colour.shape[:2], 3))
    return np.ascontiguousarray(colour)


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
    out = np.empty(colour.shape, np.uint8)
    rows = max(1, BLOCK // max(1, colour[:1].size))
    for y in range(0, len(colour), rows):
        part, opacity = colour[y : y + rows].astype(np.uint16), alpha[y : y + rows].astype(np.uint16)
        out[y : y + rows] = (part * opacity + 255 * (255 - opacity) + 127) // 255
    return out
