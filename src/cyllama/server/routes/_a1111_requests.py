"""Requests of AUTOMATIC1111's API for images: from the fields of a body to the options of the engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cyllama import models
from cyllama.sd import HiresParams
from cyllama.sd.samplers import HIRES_UPSCALERS
from cyllama.server.config import ServerConfig
from cyllama.server.fields.automatic1111 import FIRST_PASS, IMG2IMG, TXT2IMG
from cyllama.server.http.errors import http_error
from cyllama.server.image_jobs import ImageRequest, parse_options
from cyllama.server.routes._a1111_images import (
    MaskOptions,
    Part,
    decode_image,
    decode_mask,
    fit_to_size,
    masked_part,
)
from cyllama.server.routes._a1111_settings import ImageSettings

__all__ = ["Generation", "check_generation", "parse_generation", "prepare"]

# Field of a request: option of `cyllama.sd.ImageOptions`.
OPTIONS = {
    "negative_prompt": "negative_prompt",
    "width": "width",
    "height": "height",
    "steps": "steps",
    "cfg_scale": "cfg_scale",
    "distilled_cfg_scale": "guidance",
    "image_cfg_scale": "image_cfg_scale",
    "scheduler": "scheduler",
    "seed": "seed",
    "eta": "eta",
    "clip_skip": "clip_skip",
}
HIRES_SCALE = 2.0
HIRES_STRENGTH = 0.75
MASK_BLUR = 4.0
PROMPT = "{prompt}"
IMAGES, CLIENT_FIELDS = ("init_images", "mask"), ("url", "auth")


@dataclass(frozen=True)
class Generation:
    """A request for images.

    Attributes
    ----------
    prompt : str
    options : mapping
        Of `cyllama.sd.ImageOptions`.
    image, mask : str or None
        Encoded images.
    resize_mode : int
    mask_options : MaskOptions
    network : str or None
        The network that enlarges the image between two passes.
    send_images : bool
    parameters : mapping
        The fields that the response repeats.
    """

    prompt: str
    options: Mapping[str, Any]
    image: str | None
    mask: str | None
    resize_mode: int
    mask_options: MaskOptions
    network: str | None
    send_images: bool
    parameters: Mapping[str, Any]


def check_generation(body: Mapping[str, Any], from_image: bool) -> dict[str, Any]:
    """Return the fields of a request that have an effect.

    Raises
    ------
    HTTPException
        400.
    """
    same = [name for name, first in FIRST_PASS.items() if name in body and body[name] == body.get(first)]
    given = {name: value for name, value in body.items() if name not in same}
    fields = (IMG2IMG if from_image else TXT2IMG).check(given)
    for name, script in fields.pop("alwayson_scripts", {}).items():
        if not _is_off(script):
            message = f"alwayson_scripts has {name!r:.100}, expected scripts that are turned off: there are no scripts"
            raise http_error(400, message, param="alwayson_scripts")
    return fields


def _is_off(script: object) -> bool:
    """Return whether a script has no arguments, or arguments that turn it off."""
    arguments = script.get("args") if isinstance(script, dict) else script
    if isinstance(arguments, dict):
        arguments = [arguments]
    if not isinstance(arguments, list):
        return arguments is None
    first = arguments[0] if arguments else False
    return first is False or all(isinstance(item, dict) and item.get("enabled") is False for item in arguments)


def parse_generation(
    fields: Mapping[str, Any], body: Mapping[str, Any], settings: ImageSettings, config: ServerConfig
) -> Generation:
    """Return the request for checked fields.

    Raises
    ------
    HTTPException
        400.
    """
    limits = config.limits
    given = {option: fields[name] for name, option in OPTIONS.items() if name in fields}
    sampler = fields.get("sampler_name") or fields.get("sampler_index")
    given |= {"sampler": sampler} if sampler else {}
    given.setdefault("clip_skip", settings.clip_skip)
    given["batch_size"] = fields.get("batch_size", 1) * fields.get("n_iter", 1)
    images = fields.get("init_images", [])
    if len(images) > 1:
        raise http_error(400, f"init_images has {len(images)} images, expected one", param="init_images")
    if images and "denoising_strength" in fields:
        given["strength"] = fields["denoising_strength"]
    prompt, given["negative_prompt"] = _styled(fields, config)
    options = parse_options(given, limits)
    if fields.get("enable_hr"):
        options["hires"] = _hires(fields, options, config)
    hidden = CLIENT_FIELDS if fields.get("include_init_images") else (*CLIENT_FIELDS, *IMAGES)
    parameters = {name: value for name, value in body.items() if name not in hidden}
    return Generation(
        prompt,
        options,
        images[0] if images else None,
        fields.get("mask"),
        fields.get("resize_mode", 0),
        _mask_options(fields),
        fields["hr_upscaler"] if fields.get("hr_upscaler") in config.upscalers and "hires" in options else None,
        fields.get("send_images", True),
        parameters,
    )


def _styled(fields: Mapping[str, Any], config: ServerConfig) -> tuple[str, str]:
    """Return the prompts with the styles of the request."""
    prompt, negative = fields.get("prompt", ""), fields.get("negative_prompt", "")
    for name in fields.get("styles", ()):
        style = config.image_styles.get(name)
        if style is None:
            known = ", ".join(config.image_styles) or "none: the configuration has no image_styles"
            raise http_error(400, f"styles has {name!r:.100}, expected names of: {known}", param="styles")
        prompt = _merged(prompt, style.get("prompt", ""))
        negative = _merged(negative, style.get("negative_prompt", ""))
        if len(prompt) + len(negative) > config.limits.text:  # a style may repeat the prompt
            message = f"the prompts have more than {config.limits.text:,} characters with their styles (limits.text)"
            raise http_error(400, message, param="styles")
    return prompt, negative


def _merged(text: str, style: str) -> str:
    if PROMPT in style:
        return style.replace(PROMPT, text)
    return ", ".join(part for part in (text.strip(), style.strip()) if part)


def _mask_options(fields: Mapping[str, Any]) -> MaskOptions:
    blur = fields.get("mask_blur")
    return MaskOptions(
        invert=bool(fields.get("inpainting_mask_invert", 0)),
        round=fields.get("mask_round", True),
        blur=(
            float(fields.get("mask_blur_x", MASK_BLUR) if blur is None else blur),
            float(fields.get("mask_blur_y", MASK_BLUR) if blur is None else blur),
        ),
        fill=fields.get("inpainting_fill", 0) == 0,
        only_masked=fields.get("inpaint_full_res", True),
        padding=fields.get("inpaint_full_res_padding", 0),
    )


def _hires(fields: Mapping[str, Any], options: Mapping[str, Any], config: ServerConfig) -> HiresParams:
    """Return the parameters of the second pass.

    Raises
    ------
    HTTPException
        400 if it exceeds a limit, or the upscaler is unknown.
    """
    limits = config.limits
    if "width" not in options:
        raise http_error(400, "enable_hr is true, expected width and height as well", param="enable_hr")
    width, height = _hires_size(fields, options["width"], options["height"])
    if width * height > limits.pixels:
        message = f"the second pass has {width}x{height} pixels, expected at most {limits.pixels:,} (limits.pixels)"
        raise http_error(400, message, param="hr_scale")
    steps = fields.get("hr_second_pass_steps", 0)
    if steps > limits.steps:
        message = f"hr_second_pass_steps is {steps}, expected at most {limits.steps} (limits.steps)"
        raise http_error(400, message, param="hr_second_pass_steps")
    name = fields.get("hr_upscaler", "Latent")
    name = "Lanczos" if name == "None" else name
    if name not in HIRES_UPSCALERS and name not in config.upscalers:
        known = ", ".join([*HIRES_UPSCALERS, *config.upscalers])
        raise http_error(400, f"hr_upscaler is {name!r:.100}, expected one of: {known}", param="hr_upscaler")
    return HiresParams(
        enabled=True,
        upscaler="Model" if name in config.upscalers else name,
        target_width=width,
        target_height=height,
        steps=steps,
        denoising_strength=max(0.01, fields.get("denoising_strength", HIRES_STRENGTH)),
    )


def _hires_size(fields: Mapping[str, Any], width: int, height: int) -> tuple[int, int]:
    to_width, to_height = fields.get("hr_resize_x", 0), fields.get("hr_resize_y", 0)
    if not to_width and not to_height:
        scale = fields.get("hr_scale", HIRES_SCALE)
        return round(width * scale), round(height * scale)
    return to_width or round(to_height * width / height), to_height or round(to_width * height / width)


def prepare(generation: Generation, config: ServerConfig) -> tuple[ImageRequest, Part | None]:
    """Decode the images of a request and find its network, in a thread.

    Returns
    -------
    ImageRequest
    Part or None
        The part of the image to generate, with a mask.

    Raises
    ------
    HTTPException
        400, 413.
    """
    options, limits = dict(generation.options), config.limits
    if generation.network is not None:
        path = models.resolve(config.upscalers[generation.network])
        options["hires"] = dataclasses.replace(options["hires"], model_path=path)
    request = ImageRequest(generation.prompt, options)
    if generation.image is None:
        return request, None
    image = decode_image(generation.image, limits, "init_images")
    size = (options["width"], options["height"]) if "width" in options else None
    if generation.mask is None:
        if size is not None:
            image, _ = fit_to_size(image, size, generation.resize_mode)
        return dataclasses.replace(request, image=image), None
    mask = decode_mask(generation.mask, limits, image)
    part = masked_part(image, mask, generation.mask_options, size, generation.resize_mode)
    return dataclasses.replace(request, image=part.start, mask=part.mask), part
