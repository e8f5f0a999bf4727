"""Image requests: options and limits, decoding and encoding of images, and the call to the engine."""

from __future__ import annotations

import base64
import dataclasses
import io
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from cyllama.errors import CancelledError
from cyllama.sd.loras import lora_names
from cyllama.sd.options import ImageOptions
from cyllama.server.config import ModelEntry
from cyllama.server.http.current_job import Job
from cyllama.server.http.errors import http_error
from cyllama.server.limits import Limits
from cyllama.server.received_images import check_image, read_image
from cyllama.server.state import ServerState

if TYPE_CHECKING:
    from cyllama.sd import ImageResult, StableDiffusion

__all__ = [
    "OPTIONS",
    "OUTPUT_FORMATS",
    "ImageFormat",
    "ImageRequest",
    "check_image",
    "check_loras",
    "encode_image",
    "generate",
    "join_results",
    "parse_options",
    "read_image",
]

ImageFormat = Literal["png", "jpeg", "webp"]
Pixels = npt.NDArray[np.uint8]

OUTPUT_FORMATS: dict[ImageFormat, str] = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP"}
# Options that need another image, or that the server sets itself.
NOT_IN_REQUESTS = frozenset(("control_strength", "preview_interval", "guidance_scale"))
TYPES: dict[str, type] = {"int": int, "float": float, "str": str, "int | str": str}
RANDOM_SEEDS = 1 << 32
MAX_SEED = 1 << 62
MAX_NUMBER = 3e38
LONGEST_SIDE = {"jpeg": 65_535, "webp": 16_383}  # pixels, of the formats


def _option_types() -> dict[str, type]:
    declared = {field.name: str(field.type).removesuffix(" | None") for field in dataclasses.fields(ImageOptions)}
    scalars = {name: TYPES[kind] for name, kind in declared.items() if kind in TYPES and name not in NOT_IN_REQUESTS}
    return {name: kind for name, kind in scalars.items() if ImageOptions.__dataclass_fields__[name].metadata["flag"]}


OPTIONS = _option_types()
"""Options of `cyllama.sd.ImageOptions` that a request may set, with the types of their JSON values."""


@dataclass(frozen=True)
class ImageRequest:
    """A request for images.

    Attributes
    ----------
    prompt : str
    options : mapping
        Fields of `cyllama.sd.ImageOptions`.
    image : array or None
        Pixels of the initial image, of shape (height, width, 3).
    mask : array or None
        Pixels of shape (height, width); white where the image is generated anew.
    references : tuple of arrays
        Pixels of reference images.
    """

    prompt: str
    options: Mapping[str, Any]
    image: Pixels | None = None
    mask: Pixels | None = None
    references: tuple[Pixels, ...] = ()


def parse_options(given: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    """Check the types and limits of a request's options; None is left out.

    Raises
    ------
    HTTPException
        400.
    """
    found: dict[str, Any] = {}
    for name, value in given.items():
        if value is None:
            continue
        kind = OPTIONS[name]
        fits = isinstance(value, kind) or (kind is float and isinstance(value, int))
        if not fits or isinstance(value, bool):
            raise http_error(400, f"{name} is {value!r:.100}, expected {kind.__name__}", param=name)
        if kind is float and not abs(value) <= MAX_NUMBER:  # of a float of the engine; NaN is not either
            raise http_error(400, f"{name} is {value!r:.100}, expected a finite number", param=name)
        found[name] = value
    for name, most in (("steps", limits.steps), ("batch_size", limits.images)):
        if not 1 <= found.get(name, 1) <= most:
            raise http_error(400, f"{name} is {found[name]}, expected 1 to {most}", param=name)
    width, height = found.get("width", 1), found.get("height", 1)
    if width < 1 or height < 1 or width * height > limits.pixels:
        message = f"size is {width}x{height}, expected at most {limits.pixels:,} pixels"
        raise http_error(400, message, param="size")
    if ("width" in found) != ("height" in found):
        raise http_error(400, "width and height must be given together", param="width")
    return found


def generate(state: ServerState, entry: ModelEntry, request: ImageRequest, job: Job) -> ImageResult:
    """Generate the images, in a thread that holds the slot of the engine.

    The images are computed one after another, so that those before an interruption remain. They have consecutive seeds.

    Raises
    ------
    HTTPException
        400 if the prompt names a LoRA that does not exist, more than `Limits.loras`, or any without a ``lora_dir``.
    CancelledError
        The job was cancelled, or all of its images were skipped; `Job.results` has the finished images.
    """
    check_loras(request.prompt, entry, state.config.limits)
    state.image_jobs.begin(job)
    with state.use_sd(entry, job.cancel) as model:
        job.on_model(model)
        try:
            _generate_each(model, request, job)
        except FileNotFoundError:  # its message has a path of this machine
            raise http_error(400, "prompt names a LoRA that does not exist", param="prompt") from None
    return join_results(job.results)


def _generate_each(model: StableDiffusion, request: ImageRequest, job: Job) -> None:
    job.images = request.options.get("batch_size", 1)
    job.passes = 1 if request.options.get("hires") is None else 2
    seed = request.options.get("seed", -1)
    if seed < 0:
        seed = secrets.randbelow(RANDOM_SEEDS)
    if seed + job.images > MAX_SEED:
        raise http_error(400, f"seed is {seed!r:.100}, expected less than {MAX_SEED - job.images:,}", param="seed")
    for number in range(job.images):
        job.begin_image(number)
        options = {**request.options, "batch_size": 1, "seed": seed + number}
        try:
            result = _generate(model, dataclasses.replace(request, options=options), job)
        except CancelledError:
            if job.cancel.is_set() or not job.skipped:
                raise
        else:
            job.results.append(result)


def join_results(results: Sequence[ImageResult]) -> ImageResult:
    """Return the images of several results as one; its parameters are those of the first.

    Raises
    ------
    CancelledError
        There are no results, because all images were skipped.
    """
    from cyllama.sd import ImageResult

    if not results:
        raise CancelledError("all images were skipped")
    return ImageResult(
        [image for result in results for image in result],
        [seed for result in results for seed in result.seeds],
        results[0].parameters,
        [text for result in results for text in result.infotexts],
    )


def check_loras(prompt: str, entry: ModelEntry, limits: Limits) -> None:
    """Reject LoRAs unless the model's entry has a folder for them: the library's default is the folder of the model.

    Raises
    ------
    HTTPException
        400.
    """
    names = lora_names(prompt)
    if names and entry.settings.get("lora_dir") is None:
        message = f"prompt names the LoRA {names[0]!r:.100}, but {entry.name} has no lora_dir"
        raise http_error(400, message, param="prompt")
    if len(names) > limits.loras:
        message = f"prompt names {len(names):,} LoRAs, at most {limits.loras} are allowed (limits.loras)"
        raise http_error(400, message, param="prompt")


def _generate(model: StableDiffusion, request: ImageRequest, job: Job) -> ImageResult:
    options = {**request.options, "on_step": job.on_step, "on_preview": job.on_preview, "cancel": job}
    if request.references:
        return model.edit(request.prompt, list(request.references), **options)
    if request.mask is not None:
        return model.inpaint(request.prompt, request.image, request.mask, **options)
    if request.image is not None:
        return model.img2img(request.prompt, request.image, **options)
    return model.txt2img(request.prompt, **options)


def encode_image(image: Image.Image, format: ImageFormat = "png", quality: int | None = None) -> str:
    """Return an image as a file in base64.

    Parameters
    ----------
    image : PIL.Image.Image
    format : str
    quality : int, optional
        0 to 100, for JPEG and WebP.

    Raises
    ------
    HTTPException
        400 if the format does not allow images of this size.
    """
    most = LONGEST_SIDE.get(format)
    if most is not None and max(image.size) > most:
        sides = "{}x{}".format(*image.size)
        raise http_error(400, f"the image has {sides} pixels, a file of the format {format} at most {most:,} on a side")
    file = io.BytesIO()
    options = {} if quality is None or format == "png" else {"quality": quality}
    image.save(file, OUTPUT_FORMATS[format], **options)
    return base64.b64encode(file.getvalue()).decode()
