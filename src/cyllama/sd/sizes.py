"""Sizes of results: what the engine can generate, and how an image to inpaint keeps its own size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from cyllama.media.image import Pixels, fitted
from cyllama.sd.families import Family
from cyllama.sd.options import Options

__all__ = ["InpaintFrame", "inpaint_frame", "resolved_size", "result_size"]

TOO_MANY = 2  # an image with this many times the pixels of the family's size is reduced
ROWS = 64  # that are blended at a time, so that a large image needs little memory


def resolved_size(options: Options, family: Family, image: Pixels | None) -> tuple[int, int]:
    """Return width and height, rounded to the family's multiple.

    They are those of the options, else those of the image, else those of the family. An image with more than twice the
    family's number of pixels is reduced to that number. If one side is given, the image keeps its proportions.

    Raises
    ------
    TypeError, ValueError
    """
    for name in ("width", "height"):
        value = getattr(options, name)
        if value is not None and (isinstance(value, bool) or not hasattr(value, "__index__")):
            raise TypeError(f"{name} is {value!r}, expected an integer")
        if value is not None and value < 8:
            raise ValueError(f"{name} is {value}, expected at least 8")
    width, height = options.width, options.height
    if image is not None:
        rows, columns = image.shape[:2]
        if width is None and height is None:
            pixels = family.width * family.height
            scale = (pixels / (rows * columns)) ** 0.5 if rows * columns > TOO_MANY * pixels else 1.0
            width, height = _nearest(columns * scale, family), _nearest(rows * scale, family)
        elif width is None and height is not None:
            width = _nearest(columns * height / rows, family)
        elif height is None and width is not None:
            height = _nearest(rows * width / columns, family)
    width = family.width if width is None else width
    height = family.height if height is None else height
    return _up(width, family), _up(height, family)


def _up(side: int, family: Family) -> int:
    return -(-int(side) // family.multiple) * family.multiple


def _nearest(side: float, family: Family) -> int:
    step = max(family.multiple, 8)
    return max(step, round(side / step) * step)


@dataclass(frozen=True)
class InpaintFrame:
    """The place of an image to inpaint in the image that the engine generates.

    Attributes
    ----------
    width, height : int
        Size of the generated image, which the model supports.
    result : tuple of int or None
        Width and height of the result; None: those that the engine returns.
    padded : bool
        The image keeps its pixels, and its edges are repeated up to the generated size; otherwise it is resized.
    """

    width: int
    height: int
    result: tuple[int, int] | None
    padded: bool

    def enter(self, pixels: Pixels) -> Pixels:
        """Return an image or a mask with the generated size."""
        rows, columns = pixels.shape[:2]
        if (columns, rows) == (self.width, self.height):
            return pixels
        if self.padded:
            more = ((0, self.height - rows), (0, self.width - columns), *((0, 0),) * (pixels.ndim - 2))
            return np.pad(pixels, more, mode="edge")
        if self.result is not None:
            return _resized(pixels, self.width, self.height)
        return fitted(pixels, self.width, self.height)

    def leave(self, made: Pixels, image: Pixels, mask: Pixels) -> Pixels:
        """Return the result: the generated pixels where the mask is white, those of the image where it is black."""
        if self.result is None:
            height, width = made.shape[:2]
            image, mask = fitted(image, width, height), fitted(mask, width, height)
        else:
            width, height = self.result
            made = made[:height, :width] if self.padded else _resized(made, width, height)
        out = np.empty(image.shape, np.uint8)
        for y in range(0, len(image), ROWS):
            rows = slice(y, y + ROWS)
            weight = mask[rows, :, None].astype(np.uint16)
            out[rows] = (made[rows] * weight + image[rows] * (255 - weight) + 127) // 255
        return out


def inpaint_frame(options: Options, family: Family, image: Pixels) -> InpaintFrame:
    """Return the place of an image to inpaint.

    Without a size in the options, or with that of the image, the result has the image's size, so that the pixels which
    are not inpainted do not change. Of an image with more than twice the family's number of pixels, a reduced version
    is generated and enlarged again.

    Raises
    ------
    TypeError, ValueError
    """
    width, height = resolved_size(options, family, image)
    rows, columns = image.shape[:2]
    given = [options.width is not None, options.height is not None]
    same = options.width in (None, columns) and options.height in (None, rows)
    if not same or getattr(options, "hires", None) is not None:
        return InpaintFrame(width, height, None, False)
    if any(given) or rows * columns <= TOO_MANY * family.width * family.height:
        return InpaintFrame(_up(columns, family), _up(rows, family), (columns, rows), True)
    return InpaintFrame(width, height, (columns, rows), False)


def result_size(
    options: Options, family: Family, image: Pixels | None, *, is_inpainting: bool = False
) -> tuple[int, int]:
    """Return width and height of the result of a request without ``hires``.

    Raises
    ------
    TypeError, ValueError
    """
    if image is not None and is_inpainting:
        frame = inpaint_frame(options, family, image)
        return frame.result or (frame.width, frame.height)
    return resolved_size(options, family, image)


def _resized(pixels: Pixels, width: int, height: int) -> Pixels:
    method = Image.Resampling.NEAREST if pixels.ndim == 2 else Image.Resampling.LANCZOS
    return np.asarray(Image.fromarray(pixels).resize((width, height), method))
