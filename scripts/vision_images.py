"""Generate the images that ``vision-dinov2s`` is fitted on: objects in one colour on a background of another colour."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

COLOURS = {
    "red": (218, 32, 36),
    "green": (34, 160, 54),
    "blue": (38, 64, 216),
    "yellow": (240, 218, 44),
    "orange": (246, 136, 22),
    "purple": (128, 44, 168),
    "pink": (248, 156, 196),
    "brown": (126, 72, 32),
    "black": (14, 14, 16),
    "white": (248, 248, 248),
    "gray": (132, 132, 132),
}
SIZES = {"small": (22, 36), "": (42, 60), "large": (66, 100)}  # radius in pixels
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "center", "right")
SIDE = 224
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Scene:
    """The content of an image; row and column are -1 for several objects, the size is "" for medium."""

    shape: str
    colour: str
    ground: str
    count: int
    size: str
    row: int
    column: int


def _round(number: int, *radii: float, start: float = -math.pi / 2) -> Points:
    angles = [start + 2 * math.pi * i / number for i in range(number)]
    return [(radii[i % len(radii)] * math.cos(a), radii[i % len(radii)] * math.sin(a)) for i, a in enumerate(angles)]


def _cross(chance: random.Random) -> Points:
    arm, end = chance.uniform(0.25, 0.36), 0.95
    quarter = [(arm, -end), (arm, -arm), (end, -arm)]
    return [(x * c - y * s, x * s + y * c) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1)) for x, y in quarter]


def _heart(chance: random.Random) -> Points:
    wide = chance.uniform(0.9, 1.05)
    points = []
    for i in range(72):
        t = 2 * math.pi * i / 72
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((wide * 16 * math.sin(t) ** 3 / 17, -y / 17 - 0.1))
    return points


def _arrow(chance: random.Random) -> Points:
    half, head = chance.uniform(0.15, 0.24), chance.uniform(0.52, 0.64)
    points = [(-0.95, -half), (0.1, -half), (0.1, -head), (0.98, 0.0), (0.1, head), (0.1, half), (-0.95, half)]
    c, s = chance.choice([(1, 0), (0, 1), (-1, 0), (0, -1)])
    return [(x * c - y * s, x * s + y * c) for x, y in points]


def _moon(chance: random.Random) -> Points:
    """A circle without another of radius `inner` whose centre is `away` to the right."""
    away, inner = chance.uniform(0.40, 0.55), 0.85
    x = (1 - inner**2 + away**2) / (2 * away)
    outer_angle = math.acos(x)
    inner_angle = math.atan2(math.sin(outer_angle), x - away)
    outer = [outer_angle + (2 * math.pi - 2 * outer_angle) * i / 48 for i in range(49)]
    back = [2 * math.pi - inner_angle - (2 * math.pi - 2 * inner_angle) * i / 48 for i in range(49)]
    points = [(math.cos(a), math.sin(a)) for a in outer]
    points += [(away + inner * math.cos(a), inner * math.sin(a)) for a in back]
    return [(-x, y) for x, y in points] if chance.random() < 0.5 else points


def _upright_or_not(points: Points, chance: random.Random) -> Points:
    return [(y, x) for x, y in points] if chance.random() < 0.5 else points


def _rectangle(chance: random.Random) -> Points:
    half = 0.92 * chance.uniform(0.40, 0.56)
    return _upright_or_not([(-0.92, -half), (0.92, -half), (0.92, half), (-0.92, half)], chance)


def _oval(chance: random.Random) -> Points:
    flat = chance.uniform(0.42, 0.58)
    return _upright_or_not([(x, y * flat) for x, y in _round(72, 1)], chance)


def _diamond(chance: random.Random) -> Points:
    half = chance.uniform(0.55, 0.68)
    return [(0.0, -1.0), (half, 0.0), (0.0, 1.0), (-half, 0.0)]


UNNAMED = ("rectangle", "oval")  # their features are too similar to those of a square and a circle

# The outline of each shape, within a circle of radius 1.
OUTLINES: dict[str, Callable[[random.Random], Points]] = {
    "circle": lambda chance: _round(72, 1),
    "square": lambda chance: _round(4, 1, start=math.pi / 4),
    "triangle": lambda chance: _round(3, 1),
    "star": lambda chance: _round(10, 1, chance.uniform(0.38, 0.48)),
    "cross": _cross,
    "ring": lambda chance: _round(72, 1),
    "heart": _heart,
    "rectangle": _rectangle,
    "diamond": _diamond,
    "oval": _oval,
    "arrow": _arrow,
    "moon": _moon,
}


def _near(colour: str, chance: random.Random, by: int) -> tuple[int, ...]:
    return tuple(max(0, min(255, value + chance.randint(-by, by))) for value in COLOURS[colour])


def _places(scene: Scene, chance: random.Random) -> list[tuple[float, float, float]]:
    """Return (x, y, radius) of each object."""
    if scene.count == 1:
        radius = chance.uniform(*SIZES[scene.size])
        room = SIDE / 2 - radius - 2

        def place(third: int) -> float:
            if third == 1:
                return SIDE / 2 + chance.uniform(-1, 1) * min(room, 14)
            return SIDE / 2 + (third - 1) * chance.uniform(max(min(38, room), room * 0.6), room)

        return [(place(scene.column), place(scene.row), radius)]
    found: list[tuple[float, float, float]] = []
    while len(found) < scene.count:
        radius = chance.uniform(24, 50 - 5 * scene.count)
        x, y = (chance.uniform(radius + 2, SIDE - radius - 2) for _ in "xy")
        if all(math.hypot(x - other[0], y - other[1]) > radius + other[2] + 4 for other in found):
            found.append((x, y, radius))
        elif chance.random() < 0.02:  # no room is left
            found.clear()
    return found


def _draw(scene: Scene, chance: random.Random, fine: int) -> tuple[Image.Image, Image.Image]:
    colour, ground = _near(scene.colour, chance, 14), _near(scene.ground, chance, 10)
    drawing = Image.new("RGB", (SIDE * fine, SIDE * fine), ground)
    cover = Image.new("L", drawing.size, 0)
    for x, y, radius in _places(scene, chance):
        angle = chance.uniform(-0.2, 0.2)
        c, s = radius * math.cos(angle), radius * math.sin(angle)
        points = [((x + u * c - v * s) * fine, (y + u * s + v * c) * fine) for u, v in OUTLINES[scene.shape](chance)]
        hole = radius * chance.uniform(0.50, 0.68)
        for image, inside, outside in ((drawing, colour, ground), (cover, 255, 0)):
            pen = ImageDraw.Draw(image)
            pen.polygon(points, fill=inside)
            if scene.shape == "ring":
                pen.ellipse([(v + d * hole) * fine for d in (-1, 1) for v in (x, y)], fill=outside)
    return tuple(image.resize((SIDE, SIDE), Image.Resampling.BOX) for image in (drawing, cover))


def scene_image(seed: str) -> tuple[Image.Image, np.ndarray, Scene]:
    """Return the image of a seed, the part of each pixel that objects cover (0 to 1), and the content."""
    chance = random.Random(seed)
    shape = chance.choice(list(OUTLINES))
    colour, ground = chance.sample(list(COLOURS), 2)
    if chance.random() < 0.35:
        ground = chance.choice([name for name in ("white", "black", "gray") if name != colour])
    count = chance.choice([1, 1, 1, 1, 1, 2, 3])
    size = chance.choice(list(SIZES)) if count == 1 else ""
    row, column = (chance.randrange(3) for _ in "yx")
    if size == "large":
        row = column = 1
    scene = Scene(shape, colour, ground, count, size, *((row, column) if count == 1 else (-1, -1)))
    image, cover = _draw(scene, chance, fine=1 if chance.random() < 0.15 else 3)
    if chance.random() < 0.3:  # soft edges, as of an enlarged or generated image
        side = chance.randint(32, 112)
        image = image.resize((side, side), Image.Resampling.BOX).resize(image.size, Image.Resampling.BICUBIC)
    if chance.random() < 0.2:  # the noise of a camera
        strength = chance.uniform(2, 9)
        noise = np.frombuffer(chance.randbytes(SIDE * SIDE * 3), np.uint8).reshape(SIDE, SIDE, 3) / 127.5 - 1
        image = Image.fromarray(np.clip(np.asarray(image) + strength * noise, 0, 255).astype(np.uint8))
    return image, np.asarray(cover, np.float32) / 255, scene
