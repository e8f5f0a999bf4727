"""Reading pictures of coloured shapes: which colours, which shapes, where. Knows nothing of how they were made."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cyllama.models.tiny_shapes import COLOURS

NAMES = list(COLOURS)
PALETTE = np.array(list(COLOURS.values()))
GRID = 64  # shapes are compared in their bounding boxes, at this size
LEAST = 0.006  # part of the picture that counts as a thing
NEAR = 0.16  # how far a pixel may be from its colour, of 1 in each channel
EDGE = 6  # pixels at an edge that are a mixture of both sides
FRAME = 6  # pixels at the sides of a picture, where the decoder sees nothing beyond and pales


@dataclass(frozen=True)
class Thing:
    """Something in the picture; x and y from 0 to 1."""

    colour: str
    shape: str
    x: float
    y: float
    area: float


@dataclass(frozen=True)
class Seen:
    """What is in a picture; things from left to right, or from the top if one is below the other."""

    background: str
    things: list[Thing]
    vertical: bool = False

    @property
    def colours(self) -> set[str]:
        """All colours."""
        return {self.background, *(thing.colour for thing in self.things)}


def outlines() -> dict[str, np.ndarray]:
    """Each shape, filled, in its bounding box."""
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
    """The shape that covers the mask best (intersection over union)."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    pick = [np.minimum((np.arange(GRID) + 0.5) * side // GRID, side - 1).astype(int) for side in box.shape]
    small = box[np.ix_(*pick)]
    return max(outlines().items(), key=lambda kind: (small & kind[1]).sum() / (small | kind[1]).sum())[0]


def labels(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest colour of each pixel, and how far it is."""
    distance = np.abs(picture[:, :, None, :] / 255.0 - PALETTE).max(-1)
    return distance.argmin(-1), distance.min(-1)


def inner(found: np.ndarray) -> np.ndarray:
    """Pixels with nothing but their own colour around them."""
    same = np.ones(found.shape, bool)
    for axis in (0, 1):
        for step in range(1, EDGE + 1):
            for way in (-step, step):
                same &= np.roll(found, way, axis) == found
    return same


def read(picture: np.ndarray) -> Seen:
    """What is in a picture, shape (height, width, 3), uint8."""
    picture = picture[FRAME:-FRAME, FRAME:-FRAME]
    found, distance = labels(picture)
    sure = inner(found) & (distance < NEAR)
    border = np.concatenate([found[0], found[-1], found[:, 0], found[:, -1]])
    back = int(np.bincount(border).argmax())
    height, width = found.shape
    things = []
    for colour in range(len(NAMES)):
        core = sure & (found == colour)
        if colour == back or core.mean() < LEAST:
            continue
        mask = nearer(picture, colour, back) & reach(core)
        rows, columns = np.nonzero(mask)
        place = ((columns.min() + columns.max()) / 2 / width, (rows.min() + rows.max()) / 2 / height)
        things.append(Thing(NAMES[colour], shape_of(mask), *place, mask.mean()))
    vertical = len(things) == 2 and abs(things[0].y - things[1].y) > abs(things[0].x - things[1].x)
    things.sort(key=lambda thing: thing.y if vertical else thing.x)
    return Seen(NAMES[back], things, vertical)


def nearer(picture: np.ndarray, colour: int, back: int) -> np.ndarray:
    """Pixels that are nearer to the colour than to the background."""
    pixels = picture / 255.0
    return np.square(pixels - PALETTE[colour]).sum(-1) < np.square(pixels - PALETTE[back]).sum(-1)


def reach(core: np.ndarray) -> np.ndarray:
    """The core and what lies within twice the width of an edge: no part of another thing."""
    grown = core.copy()
    for _ in range(2 * EDGE):
        near = grown.copy()
        for axis in (0, 1):
            for way in (-1, 1):
                near |= np.roll(grown, way, axis)
        grown = near
    return grown
