"""Upscaling of AUTOMATIC1111's API: networks of the configuration, and Pillow's resampling."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from cyllama import models
from cyllama.server.config import ServerConfig
from cyllama.server.http.current_job import Job
from cyllama.server.http.errors import http_error
from cyllama.server.image_jobs import Pixels

if TYPE_CHECKING:
    from cyllama.sd import Upscaler

__all__ = ["PILLOW", "Enlargement", "Enlarger", "parse_enlargement"]

PILLOW = {"Lanczos": Image.Resampling.LANCZOS, "Nearest": Image.Resampling.NEAREST}
"""Upscalers without a network, by AUTOMATIC1111's names."""
MIN_FACTOR, MAX_FACTOR = 0.125, 16.0
NETWORK_PIXELS = 4  # a network's own result may have this many times the limit on pixels


@dataclass(frozen=True)
class Enlargement:
    """What to do with images.

    Attributes
    ----------
    upscaler : str or None
        None changes nothing.
    second : str or None
        A second one, which is blended with the first.
    weight : float
        Of the second.
    factor : float
    size : pair of int or None
        Width and height, instead of the factor.
    crop : bool
        Crop to the size; else the image covers it in its own proportions.
    """

    upscaler: str | None
    second: str | None = None
    weight: float = 0.0
    factor: float = 2.0
    size: tuple[int, int] | None = None
    crop: bool = True

    @property
    def networks(self) -> tuple[str, ...]:
        """The names of its networks."""
        return tuple(name for name in (self.upscaler, self.second) if name is not None and name not in PILLOW)


def parse_enlargement(fields: Mapping[str, Any], config: ServerConfig) -> Enlargement:
    """Return what the fields of a request say.

    Raises
    ------
    HTTPException
        400 if an upscaler is unknown.
    """
    for name in ("upscaler_1", "upscaler_2"):
        value = fields.get(name)
        if value is not None and value not in PILLOW and value not in config.upscalers:
            known = ", ".join(["None", *PILLOW, *config.upscalers])
            raise http_error(400, f"{name} is {value!r:.100}, expected one of: {known}", param=name)
    first, second = fields.get("upscaler_1"), fields.get("upscaler_2")
    if first is None and second is not None:
        raise http_error(400, f"upscaler_2 is {second!r:.100}, expected upscaler_1 as well", param="upscaler_2")
    size = None
    if fields.get("resize_mode"):
        size = fields.get("upscaling_resize_w", 512), fields.get("upscaling_resize_h", 512)
    return Enlargement(
        first,
        second,
        fields.get("extras_upscaler_2_visibility", 0.0),
        fields.get("upscaling_resize", 2.0),
        size,
        fields.get("upscaling_crop", True),
    )


class Enlarger:
    """Enlarge images; the networks stay loaded until the end of the block.

    Parameters
    ----------
    plan : Enlargement
    config : ServerConfig
    job : Job
        Reports the progress, and cancels.
    """

    def __init__(self, plan: Enlargement, config: ServerConfig, job: Job) -> None:
        self._plan, self._config, self._job = plan, config, job
        self._networks: dict[str, Upscaler] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Enlarger:
        from cyllama.sd import Upscaler

        with contextlib.ExitStack() as stack:
            for name in dict.fromkeys(self._plan.networks):
                path = models.resolve(self._config.upscalers[name])
                self._networks[name] = stack.enter_context(Upscaler(path, cancel=self._job))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def check(self, pixels: Pixels, name: str) -> None:
        """Check the size of the result.

        Raises
        ------
        HTTPException
            400.
        """
        if self._plan.upscaler is None:
            return
        height, width = pixels.shape[:2]
        limit, factor = self._config.limits.pixels, self._factor(pixels)
        if not MIN_FACTOR <= factor <= MAX_FACTOR:
            expected = f"expected {MIN_FACTOR:g} to {MAX_FACTOR:g}"
            raise http_error(400, f"{name} is enlarged {factor:g} times, {expected}", param="upscaling_resize")
        size = round(width * factor), round(height * factor)
        if size[0] * size[1] > limit:
            message = f"the result has {size[0]}x{size[1]} pixels, expected at most {limit:,} (limits.pixels)"
            raise http_error(400, message, param="upscaling_resize")
        for network in self._networks.values():
            if width * height * network.factor**2 > NETWORK_PIXELS * limit:
                most = NETWORK_PIXELS * limit // network.factor**2
                message = f"{name} is {width}x{height}, at most {most:,} pixels are allowed for this upscaler"
                raise http_error(400, message, param=name)

    def enlarge(self, pixels: Pixels) -> Image.Image:
        """Return the enlarged image."""
        plan = self._plan
        if plan.upscaler is None:
            return Image.fromarray(pixels)
        found = self._upscaled(pixels, plan.upscaler)
        if plan.second is not None:
            found = Image.blend(found, self._upscaled(pixels, plan.second), plan.weight)
        if plan.size is not None and plan.crop:
            left, top = (found.width - plan.size[0]) // 2, (found.height - plan.size[1]) // 2
            found = found.crop((left, top, left + plan.size[0], top + plan.size[1]))
        return found

    def _factor(self, pixels: Pixels) -> float:
        size = self._plan.size
        height, width = pixels.shape[:2]
        return self._plan.factor if size is None else max(size[0] / width, size[1] / height)

    def _upscaled(self, pixels: Pixels, name: str) -> Image.Image:
        height, width = pixels.shape[:2]
        factor = self._factor(pixels)
        size = max(1, round(width * factor)), max(1, round(height * factor))
        if name in PILLOW:
            return Image.fromarray(pixels).resize(size, PILLOW[name])
        from cyllama.sd import upscale

        large = upscale(pixels, self._networks[name], on_step=self._job.on_step, cancel=self._job)
        return large if large.size == size else large.resize(size, Image.Resampling.LANCZOS)
