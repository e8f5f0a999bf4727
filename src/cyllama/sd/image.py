"""Pictures in and out: Pillow images, files, bytes and arrays of any usual kind as 8-bit pixels, and back.

No pixel is touched by Python code: NumPy and Pillow do the work. A picture with transparency is put on white. Files are
turned as their EXIF orientation says.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from cyllama.errors import MediaError

__all__ = ["fitted", "to_mask", "to_pil", "to_pixels", "to_pixels_list"]

Pixels = npt.NDArray[np.uint8]
Array = npt.NDArray[Any]

EXPECTED = "a Pillow image, a path, the bytes of a file, a binary file or an array"
PLANES = (1, 3, 4)  # gray, colour, colour and alpha, where channels come first
CHANNELS = (1, 2, 3, 4)
RANGE_SLACK = 1e-3  # what rounding may add to numbers from 0 to 1
BAND = 1 << 18  # bytes; Pillow copies what is larger piece by piece, which takes five times as long


def to_pixels(image: Any, name: str = "image") -> Pixels:
    """Any picture as colours.

    Parameters
    ----------
    image : PIL.Image.Image, path, bytes, binary file object or array
        A Pillow image of any mode, a file that Pillow reads, its content, or an array (NumPy, torch, anything with
        ``__array__`` or ``__array_interface__``) of shape (height, width), (height, width, channels) or
        (channels, height, width), with a leading 1 or without, of 1 to 4 channels: gray, gray and alpha, colour, colour
        and alpha. uint8 is 0 to 255, uint16 is 0 to 65,535, other integers are 0 to 255, floats are 0 to 1.
    name : str
        Its name in messages.

    Returns
    -------
    ndarray, shape (height, width, 3), uint8
        C-contiguous; it may share the memory of an array that was given.

    Raises
    ------
    TypeError
        It is nothing of the kind.
    ValueError
        An array of another shape or out of range, or a picture without pixels.
    MediaError
        It is no picture, or a damaged one.
    FileNotFoundError
    """
    array = _array(image, name)
    alpha = array[..., -1:] if array.shape[2] in (2, 4) else None
    colour = array[..., : 1 if array.shape[2] < 3 else 3]
    if alpha is not None and not (alpha == 255).all():
        colour = _on_white(colour, alpha)
    if colour.shape[2] == 1:
        colour = np.broadcast_to(colour, (*colour.shape[:2], 3))
    return np.ascontiguousarray(colour)


def to_pixels_list(images: Any, name: str = "images") -> list[Pixels]:
    """One picture or several, each as of `to_pixels`.

    Parameters
    ----------
    images : picture, sequence of pictures, or array of shape (count, height, width, channels)
    name : str

    Returns
    -------
    list of ndarray
    """
    if isinstance(images, np.ndarray) and images.ndim == 4:
        images = list(images)
    if isinstance(images, Sequence) and not isinstance(images, str | bytes | bytearray | memoryview):
        return [to_pixels(image, f"{name}[{i}]") for i, image in enumerate(images)]
    if isinstance(images, Iterable) and not _is_picture(images):
        return to_pixels_list(list(images), name)
    return [to_pixels(images, name)]


def to_mask(image: Any, name: str = "mask_image") -> Pixels:
    """Any picture as a mask: white is 255, black is 0; colours count by their brightness, transparency is black.

    Returns
    -------
    ndarray, shape (height, width), uint8
    """
    array = _array(image, name)
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
    """A Pillow image (RGB, or L for a mask) of uint8 pixels."""
    return Image.fromarray(pixels)


def fitted(pixels: Pixels, width: int, height: int) -> Pixels:
    """The picture in another size: enlarged or reduced until it covers it, then cut at the centre.

    Parameters
    ----------
    pixels : ndarray, shape (height, width, 3) or (height, width), uint8
    width, height : int
        In pixels.

    Returns
    -------
    ndarray, uint8
        The same array if it has that size.

    Notes
    -----
    Lanczos; a mask takes the nearest pixel, so that black and white stay so.
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    method = Image.Resampling.NEAREST if pixels.ndim == 2 else Image.Resampling.LANCZOS
    return np.ascontiguousarray(ImageOps.fit(Image.fromarray(pixels), (width, height), method))


def _is_picture(value: Any) -> bool:
    kinds = (Image.Image, np.ndarray, str, bytes, bytearray, memoryview, os.PathLike)
    return isinstance(value, kinds) or any(
        hasattr(value, name) for name in ("read", "__array__", "__array_interface__")
    )


def _array(image: Any, name: str) -> Pixels:
    """(height, width, 1 to 4) uint8."""
    if isinstance(image, Image.Image):
        array = _from_pil(image, name)
    elif isinstance(image, str | os.PathLike):
        with open(image, "rb") as file:
            array = _decoded(file, f"{name} ({os.fspath(image)})")
    elif isinstance(image, bytes | bytearray | memoryview):
        array = _decoded(io.BytesIO(image), name)
    elif callable(getattr(image, "read", None)):
        array = _decoded(image, name)
    else:
        array = _from_array(image, name)
    if not array.size:
        raise ValueError(f"{name} has {array.shape[1]}x{array.shape[0]} pixels, expected at least one")
    return array


def _decoded(file: Any, name: str) -> Pixels:
    try:
        with Image.open(file) as image:
            return _from_pil(ImageOps.exif_transpose(image), name)
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name} is refused: {error}") from None
    except MemoryError:
        raise
    except Exception as error:  # the readers of the formats raise anything for damaged files
        text = str(error).split("<_io")[0].strip().rstrip(",") or type(error).__name__
        raise MediaError(f"{name} is no picture that can be read: {text}") from error


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
        array = array.transpose(1, 2, 0)
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
        return ((array.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    if kind not in "iuf":
        raise ValueError(f"{name} has dtype {array.dtype}, expected integers, floats or booleans")
    high = 1.0 if kind == "f" else 255
    if array.size:
        least, most = array.min(), array.max()
        slack = RANGE_SLACK if kind == "f" else 0
        if not (-slack <= least and most <= high + slack):  # NaN as well
            raise ValueError(f"{name} has values from {least} to {most}, expected 0 to {high:g} for {array.dtype}")
    if kind == "f":
        return np.rint(np.clip(array, 0, 1).astype(np.float32) * 255).astype(np.uint8)
    return array.astype(np.uint8)


def _on_white(colour: Array, alpha: Array) -> Pixels:
    wide = colour.astype(np.uint16) * alpha + 255 * (255 - alpha.astype(np.uint16))
    return ((wide + 127) // 255).astype(np.uint8)
