"""Images of AUTOMATIC1111's requests: decoding, fitting to a size, and the part that a mask selects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from cyllama.media.image import fitted
from cyllama.server.http.errors import http_error
from cyllama.server.image_jobs import Pixels
from cyllama.server.limits import Limits
from cyllama.server.received_images import decode_text, read_image, read_mask

__all__ = ["Box", "MaskOptions", "Part", "decode_image", "decode_mask", "fit_to_size", "masked_part"]

Box = tuple[int, int, int, int]
"""Left, top, right, bottom."""
Size = tuple[int, int]
"""Width, height."""
STRETCH, CROP, EXTEND = 0, 1, 2  # resize_mode
WHITE, HALF = 255, 128
FILL_RADII = (256, 64, 16, 4, 2)  # pixels
FILL_SIDE = 512  # pixels; the colours around a mask are computed in a reduced image
FILL_GAIN = 4.0  # a blurred colour counts in full where a quarter of its neighbours are outside the mask


@dataclass(frozen=True)
class MaskOptions:
    """How a mask is used.

    Attributes
    ----------
    invert, round : bool
        Exchange black and white; make the mask black and white.
    blur : pair of float
        Radius in x and y.
    fill : bool
        Start with the colours around the mask instead of the image under it.
    only_masked : bool
        Generate the masked part in the whole size.
    padding : int
        Pixels around the masked part.
    """

    invert: bool = False
    round: bool = True
    blur: tuple[float, float] = (4.0, 4.0)
    fill: bool = True
    only_masked: bool = True
    padding: int = 0


@dataclass(frozen=True)
class Part:
    """A part of an image to generate.

    Attributes
    ----------
    start, mask : array
        Pixels to start from, and the mask, of the size to generate.
    image, full_mask : array
        The image into which the result is pasted, and its mask.
    box : Box
        Place of the part in `image`.
    inner : Box
        Place of the part in `start`; the rest of `start` repeats its edges.
    """

    start: Pixels
    mask: Pixels
    image: Pixels
    full_mask: Pixels
    box: Box
    inner: Box

    def paste(self, made: Pixels) -> Pixels:
        """Return the image with a result: unchanged where the mask is black."""
        height, width = made.shape[:2]
        rows, columns = self.start.shape[:2]
        left, top, right, bottom = self.inner
        inner = (left * width // columns, top * height // rows, right * width // columns, bottom * height // rows)
        x0, y0, x1, y1 = self.box
        part = Image.fromarray(made).crop(inner).resize((x1 - x0, y1 - y0), Image.Resampling.LANCZOS)
        found = self.image.copy()
        weight = self.full_mask[y0:y1, x0:x1, None].astype(np.uint16)
        old = found[y0:y1, x0:x1]
        found[y0:y1, x0:x1] = (np.asarray(part) * weight + old * (WHITE - weight) + WHITE // 2) // WHITE
        return found


def decode_image(text: object, limits: Limits, name: str) -> Pixels:
    """Return the pixels of an image in base64; errors as of `read_image`."""
    return read_image(decode_text(text, name), limits, name)


def decode_mask(text: object, limits: Limits, image: Pixels) -> Pixels:
    """Return the pixels of a mask for an image.

    Raises
    ------
    HTTPException
        400, 413.
    """
    mask = read_mask(decode_text(text, "mask"), limits)
    if mask.shape != image.shape[:2]:
        (rows, columns), (height, width) = mask.shape, image.shape[:2]
        raise http_error(400, f"mask has {columns}x{rows} pixels, expected those of the image: {width}x{height}")
    return mask


def fit_to_size(pixels: Pixels, size: Size, mode: int) -> tuple[Pixels, Box]:
    """Return pixels of a size, and the box of the image in them.

    Parameters
    ----------
    pixels : array
    size : pair
    mode : int
        0: stretch. 1: cover the size and crop. 2: fit into the size and repeat the edges.
    """
    width, height = size
    rows, columns = pixels.shape[:2]
    if mode == CROP:
        return fitted(pixels, width, height), (0, 0, width, height)
    if mode == STRETCH:
        return _resized(pixels, size), (0, 0, width, height)
    scale = min(width / columns, height / rows)
    inner = max(1, min(width, round(columns * scale))), max(1, min(height, round(rows * scale)))
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    around = [(top, height - inner[1] - top), (left, width - inner[0] - left)]
    found = np.pad(_resized(pixels, inner), [*around, *[(0, 0)] * (pixels.ndim - 2)], mode="edge")
    return found, (left, top, left + inner[0], top + inner[1])


def _resized(pixels: Pixels, size: Size) -> Pixels:
    if pixels.shape[:2] == (size[1], size[0]):
        return pixels
    method = Image.Resampling.BILINEAR if pixels.ndim == 2 else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(pixels).resize(size, method))


def masked_part(image: Pixels, mask: Pixels, options: MaskOptions, size: Size | None, mode: int) -> Part:
    """Return the part of an image to generate.

    Parameters
    ----------
    image, mask : array
        Of the same size.
    options : MaskOptions
    size : pair or None
        Size to generate; None: that of the image or of the part.
    mode : int
        As of `fit_to_size`, for the whole image.
    """
    mask = _prepared(mask, options)
    used = _used_box(mask) if options.only_masked else None
    rows, columns = mask.shape
    if used is not None:  # a black mask has no part
        box = _grown(used, options.padding, size, (columns, rows))
        x0, y0, x1, y1 = box
        wanted = size or (x1 - x0, y1 - y0)
        start, inner = fit_to_size(_filled(image, mask, box) if options.fill else image[y0:y1, x0:x1], wanted, EXTEND)
        small, _ = fit_to_size(mask[y0:y1, x0:x1], wanted, EXTEND)
        return Part(start, small, image, mask, box, inner)
    if size is not None:
        image, _ = fit_to_size(image, size, mode)
        mask, _ = fit_to_size(mask, size, mode)
        rows, columns = mask.shape
    whole = (0, 0, columns, rows)
    return Part(_filled(image, mask, whole) if options.fill else image, mask, image, mask, whole, whole)


def _prepared(mask: Pixels, options: MaskOptions) -> Pixels:
    if options.invert:
        mask = WHITE - mask
    if options.round:
        mask = np.where(mask >= HALF, WHITE, 0).astype(np.uint8)
    if any(options.blur):
        mask = np.asarray(Image.fromarray(mask).filter(ImageFilter.GaussianBlur(options.blur)))
    return np.ascontiguousarray(mask)


def _used_box(mask: Pixels) -> Box | None:
    return Image.fromarray(mask).getbbox()


def _grown(box: Box, padding: int, size: Size | None, whole: Size) -> Box:
    """Return a box with padding, in the proportions of a size as far as the image allows."""
    width, height = whole
    x0, y0 = max(0, box[0] - padding), max(0, box[1] - padding)
    x1, y1 = min(width, box[2] + padding), min(height, box[3] + padding)
    if size is not None:
        ratio = size[0] / size[1]
        x0, x1 = _widened(x0, x1, round((y1 - y0) * ratio), width)
        y0, y1 = _widened(y0, y1, round((x1 - x0) / ratio), height)
    return x0, y0, x1, y1


def _widened(start: int, end: int, wanted: int, limit: int) -> tuple[int, int]:
    """Return a range of at least a length around the middle of another one, within 0 and a limit."""
    length = min(limit, max(end - start, wanted))
    first = min(max(0, (start + end - length) // 2), limit - length)
    return first, first + length


def _filled(image: Pixels, mask: Pixels, box: Box) -> Pixels:
    """Return a box of an image, in which the colours around the mask replace what is under it."""
    height, width = mask.shape
    left, top = max(0, box[0] - FILL_RADII[0]), max(0, box[1] - FILL_RADII[0])
    right, bottom = min(width, box[2] + FILL_RADII[0]), min(height, box[3] + FILL_RADII[0])
    image, mask = image[top:bottom, left:right], mask[top:bottom, left:right]
    inner = np.s_[box[1] - top : box[3] - top, box[0] - left : box[2] - left]
    if not mask.any() or mask.min() == WHITE:
        return image[inner]
    size = right - left, bottom - top
    scale = min(1.0, FILL_SIDE / max(size))
    small = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    around = _resized(_surroundings(_resized(image, small), _resized(mask, small), scale), size)
    filled = Image.composite(Image.fromarray(around), Image.fromarray(image), Image.fromarray(mask))
    return np.asarray(filled)[inner]


def _surroundings(image: Pixels, mask: Pixels, scale: float) -> Pixels:
    """Return for each pixel the colours outside a mask: the far ones, and over them the near ones."""
    kept = WHITE - mask
    visible = _rounded(image.astype(np.float32) * kept[..., None] / WHITE)
    colours = image.astype(np.float32)
    for radius in FILL_RADII:
        blur = ImageFilter.GaussianBlur(max(1.0, radius * scale))
        weight = np.asarray(Image.fromarray(kept).filter(blur), np.float32)[..., None] / WHITE
        near = np.asarray(Image.fromarray(visible).filter(blur), np.float32) / np.maximum(weight, 1 / WHITE)
        part = np.minimum(1, weight * FILL_GAIN)
        colours = colours * (1 - part) + np.minimum(near, WHITE) * part
    return _rounded(colours)


def _rounded(values: npt.NDArray[Any]) -> Pixels:
    found: Pixels = np.clip(np.rint(values), 0, WHITE).astype(np.uint8)
    return found
