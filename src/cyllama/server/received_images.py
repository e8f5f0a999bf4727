"""Images in requests: the one decoder of all routes, with the limits on received images."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from cyllama.errors import MediaError
from cyllama.media.encoded import decode_base64
from cyllama.media.image import to_alpha, to_layers, to_mask, to_pixels
from cyllama.media.image_file import check_image_file
from cyllama.server.http.errors import http_error
from cyllama.server.limits import Limits

__all__ = ["check_image", "decode_text", "read_alpha", "read_image", "read_layers", "read_mask"]

Pixels = npt.NDArray[np.uint8]
_T = TypeVar("_T")


def decode_text(text: object, name: str) -> bytes:
    """Decode the base64 or the data URL of an image or an audio clip.

    Raises
    ------
    HTTPException
        400; URLs and paths are not opened.
    """
    if not isinstance(text, str):
        raise http_error(400, f"{name} is {text!r:.100}, expected base64", param=name)
    try:
        return decode_base64(text, name)
    except ValueError as error:
        raise http_error(400, f"{error}; URLs and paths are not opened", param=name) from None


def check_image(data: bytes, max_pixels: int, name: str) -> None:
    """Check the kind and the size of an encoded image by its header, before it is decoded.

    Raises
    ------
    HTTPException
        400 if it is not an image, 413 if it is too large.
    """
    with _rejecting(name, too_large=413):
        check_image_file(data, name, max_pixels)


def read_image(data: bytes, limits: Limits, name: str) -> Pixels:
    """Return the pixels of an encoded image, of shape (height, width, 3) and dtype uint8.

    An image with more pixels than one that is generated may have (``limits.pixels``) is reduced to that number.

    Raises
    ------
    HTTPException
        400 if it is not an image or is damaged, 413 if it is too large.
    """
    return _read(to_pixels, data, limits, name)


def read_layers(data: bytes, limits: Limits, name: str) -> tuple[Pixels, Pixels | None]:
    """Return the pixels of an encoded image as `read_image`, and its opacity as `read_alpha`."""
    return _read(to_layers, data, limits, name)


def read_mask(data: bytes, limits: Limits, name: str = "mask") -> Pixels:
    """Return the brightness of an encoded image as a mask, of shape (height, width); as of `read_image`."""
    return _read(to_mask, data, limits, name)


def read_alpha(data: bytes, limits: Limits, name: str) -> Pixels | None:
    """Return the opacity of an encoded image, of shape (height, width); None if it has no transparency."""
    return _read(to_alpha, data, limits, name)


def _read(convert: Callable[..., _T], data: bytes, limits: Limits, name: str) -> _T:
    check_image(data, limits.received_pixels, name)
    with _rejecting(name):
        return convert(data, name, max_pixels=limits.received_pixels, reduce_to=limits.pixels)


@contextlib.contextmanager
def _rejecting(name: str, too_large: int = 400) -> Iterator[None]:
    try:
        yield
    except MediaError as error:
        raise http_error(400, str(error), param=name) from error
    except ValueError as error:
        raise http_error(too_large, str(error), param=name) from None
