"""Recognize coloured shapes in images: colours, shapes and positions, independently of the generator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cyllama.models.generated.tiny_shapes import COLOURS

NAMES = list(COLOURS)
PALETTE = np.array(list(COLOURS.values()))
GRID = 64  # shapes are compared in their bounding boxes, at this size
LEAST = 0.006  # smallest area of an object, as a part of the image
NEAR = 0.16  # largest distance of a pixel from its colour, 0 to 1 in each channel
EDGE = 6  # width of a blurred edge in pixels
FRAME = 6  # pixels at the border, where the decoder is inaccurate


@dataclass(frozen=True)
class Thing:
    """An object in the image; x and y from 0 to 1."""

    colour: str
    shape: str
    x: float
    y: float
    area: float


@dataclass(frozen=True)
class Seen:
    """The objects of an image, from left to right, or from top to bottom if one is below the other."""

    background: str
    things: list[Thing]
    vertical: bool = False

    @property
    def colours(self) -> set[str]:
        """All colours of the image."""
        return {self.background, *(thing.colour for thing in self.things)}


def outlines() -> dict[str, np.ndarray]:
    """Return the mask of each shape in its bounding box."""
    y, x = np.mgrid[0:GRID, 0:GRID]
    x, y = (x + 0.5) / GRID * 2 - 1, (y + 0.5) / GRID * 2 - 1
    away = np.hypot(x, y)
    return {
        "circle": away <= 1,
        "square": np.ones((GRID, GRID), bool),
        "triangle": np.abs(x) <= (y + 1) / 2,
        "cross": (np.abs(x) <= 0.34) | (np.abs(y) <= 0.34),
        "ring": (away <= 1) & (away >= 0.45),
    }


def shape_of(mask: np.ndarray) -> str:
    """Return the shape that fits the mask best (intersection over union)."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    pick = [np.minimum((np.arange(GRID) + 0.5) * side // GRID, side - 1).astype(int) for side in box.shape]
    small = box[np.ix_(*pick)]
    return max(outlines().items(), key=lambda kind: (small & kind[1]).sum() / (small | kind[1]).sum())[0]


def labels(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest colour of each pixel and its distance."""
    distance = np.abs(image[:, :, None, :] / 255.0 - PALETTE).max(-1)
    return distance.argmin(-1), distance.min(-1)


def inner(found: np.ndarray) -> np.ndarray:
    """Return a mask of pixels whose neighbours have the same colour."""
    same = np.ones(found.shape, bool)
    for axis in (0, 1):
        for step in range(1, EDGE + 1):
            for way in (-step, step):
                same &= np.roll(found, way, axis) == found
    return same


def read(image: np.ndarray) -> Seen:
    """Recognize the objects of an image: uint8, shape (height, width, 3)."""
    image = image[FRAME:-FRAME, FRAME:-FRAME]
    found, distance = labels(image)
    sure = inner(found) & (distance < NEAR)
    border = np.concatenate([found[0], found[-1], found[:, 0], found[:, -1]])
    back = int(np.bincount(border).argmax())
    height, width = found.shape
    things = []
    for colour in range(len(NAMES)):
        core = sure & (found == colour)
        if colour == back or core.mean() < LEAST:
            continue
        mask = nearer(image, colour, back) & reach(core)
        rows, columns = np.nonzero(mask)
        place = ((columns.min() + columns.max()) / 2 / width, (rows.min() + rows.max()) / 2 / height)
        things.append(Thing(NAMES[colour], shape_of(mask), *place, mask.mean()))
    vertical = len(things) == 2 and abs(things[0].y - things[1].y) > abs(things[0].x - things[1].x)
    things.sort(key=lambda thing: thing.y if vertical else thing.x)
    return Seen(NAMES[back], things, vertical)


def nearer(image: np.ndarray, colour: int, back: int) -> np.ndarray:
    """Return a mask of pixels that are nearer to the colour than to the background."""
    pixels = image / 255.0
    return np.square(pixels - PALETTE[colour]).sum(-1) < np.square(pixels - PALETTE[back]).sum(-1)


def reach(core: np.ndarray) -> np.ndarray:
    """Return the core extended by twice the width of an edge."""
    grown = core.copy()
    for _ in range(2 * EDGE):
        near = grown.copy()
        for axis in (0, 1):
            for way in (-1, 1):
                near |= np.roll(grown, way, axis)
        grown = near
    return grown
