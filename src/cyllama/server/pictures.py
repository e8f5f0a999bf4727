"""What the routes for pictures have in common: options, limits, files, the job that runs."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from cyllama.media.image import to_pixels
from cyllama.sd import StableDiffusion
from cyllama.server.config import Limits, ModelEntry
from cyllama.server.hub import Hub
from cyllama.server.jobs import Job
from cyllama.server.pictures_in import check_picture
from cyllama.server.problems import problem

__all__ = ["FORMATS", "OPTIONS", "Wish", "draw", "encoded", "options_of", "read_picture"]

FORMATS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP"}
# Options of `cyllama.sd.ImageOptions` that a request may give: name and type. The others name files or are objects.
OPTIONS: dict[str, type] = {
    "negative_prompt": str,
    "width": int,
    "height": int,
    "steps": int,
    "cfg_scale": float,
    "guidance": float,
    "image_cfg_scale": float,
    "sampler": str,
    "scheduler": str,
    "eta": float,
    "flow_shift": float,
    "seed": int,
    "clip_skip": int,
    "strength": float,
    "batch_size": int,
}


@dataclass(frozen=True)
class Wish:
    """What a request asks for.

    Attributes
    ----------
    prompt : str
    options : mapping
        Of `cyllama.sd.ImageOptions`.
    image, mask, references
        Pixels: a picture to start from, where to paint, pictures to go by.
    """

    prompt: str
    options: Mapping[str, Any]
    image: Any = None
    mask: Any = None
    references: tuple[Any, ...] = ()


def options_of(given: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    """Options out of a request, of the right types and within the limits.

    Raises
    ------
    HTTPException
    """
    found: dict[str, Any] = {}
    for name, value in given.items():
        if value is None:
            continue
        kind = OPTIONS[name]
        fits = isinstance(value, kind) or (kind is float and isinstance(value, int))
        if not fits or isinstance(value, bool):
            raise problem(400, f"{name} is {value!r:.100}, expected {kind.__name__}", param=name)
        found[name] = value
    for name, most in (("steps", limits.steps), ("batch_size", limits.pictures)):
        if not 1 <= found.get(name, 1) <= most:
            raise problem(400, f"{name} is {found[name]}, expected 1 to {most}", param=name)
    width, height = found.get("width", 1), found.get("height", 1)
    if width < 1 or height < 1 or width * height > limits.pixels:
        raise problem(400, f"the size is {width}x{height}, at most {limits.pixels:,} pixels are allowed", param="size")
    if (width == 1) != (height == 1):
        raise problem(400, "width and height go together", param="width")
    return found


def read_picture(data: bytes, limits: Limits, name: str) -> Any:
    """The pixels of a file.

    Raises
    ------
    HTTPException
    """
    check_picture(data, limits.pixels, name)
    return to_pixels(data, name)


def draw(hub: Hub, entry: ModelEntry, wish: Wish, job: Job) -> Any:
    """Make the pictures, in a working thread whose turn it is.

    Returns
    -------
    ImageResult
    """
    hub.jobs.current = job
    try:
        with hub.use(entry, job.cancel) as model:
            try:
                return _made(model, wish, job)
            except FileNotFoundError:  # no path of this machine in the answer
                raise problem(400, "the prompt names a LoRA that there is not", param="prompt") from None
    finally:
        hub.jobs.current = None


def _made(model: StableDiffusion, wish: Wish, job: Job) -> Any:
    options = {**wish.options, "on_step": job.on_step, "on_preview": job.on_preview, "cancel": job.cancel}
    if wish.references:
        return model.edit(wish.prompt, list(wish.references), **options)
    if wish.mask is not None:
        return model.inpaint(wish.prompt, wish.image, wish.mask, **options)
    if wish.image is not None:
        return model.img2img(wish.prompt, wish.image, **options)
    return model.txt2img(wish.prompt, **options)


def encoded(picture: Image.Image, format: str = "png", quality: int | None = None) -> str:
    """A picture as base64 of a file."""
    file = io.BytesIO()
    more = {} if quality is None or format == "png" else {"quality": quality}
    picture.save(file, FORMATS[format], **more)
    return base64.b64encode(file.getvalue()).decode()
