"""Requests: the arguments of one call, parsed once, and the engine's parameters for them."""

from __future__ import annotations

import dataclasses
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from cyllama._params import common
from cyllama.errors import UnsupportedError
from cyllama.media.image import Pixels, fitted, to_mask, to_pixels, to_pixels_list
from cyllama.sd._validation import reject_unused_image_options, reject_unused_video_options
from cyllama.sd.callbacks import Hooks, split_hooks
from cyllama.sd.families import Family
from cyllama.sd.loras import lora_list, reject_lora_tags, split_prompt
from cyllama.sd.options import ImageOptions, Options, VideoOptions, options_from
from cyllama.sd.params import (
    CacheParams,
    GuidanceParams,
    HiresParams,
    ImageGenParams,
    Lora,
    PhotoMakerParams,
    SampleParams,
    SDContextParams,
    SDTilingParams,
    SlgParams,
    VideoGenParams,
)
from cyllama.sd.samplers import sampler_and_scheduler
from cyllama.sd.sizes import inpaint_frame, resolved_size

__all__ = [
    "Inputs",
    "Request",
    "edit_request",
    "image_params",
    "img2img_request",
    "img2vid_request",
    "inpaint_request",
    "resolved_seed",
    "txt2img_request",
    "txt2vid_request",
    "video_params",
]

Switched = TypeVar("Switched", HiresParams | None, SDTilingParams | None)
SEEDS = 1 << 32  # the range of random seeds, as in other tools
NOISY_STEPS_BY_BOUNDARY = -1
SKIP_LAYERS = (7, 8, 9)  # the default of the engine's own program
STRENGTH = 0.75  # the engine's default
CONTROL_STRENGTH = 0.9  # the engine's default


@dataclass
class Inputs:
    """The images that a request starts from.

    Attributes
    ----------
    image : ndarray or None
        (height, width, 3), to start from.
    mask : ndarray or None
        (height, width), white where to inpaint.
    references : list of ndarray
    """

    image: Pixels | None = None
    mask: Pixels | None = None
    references: list[Pixels] = field(default_factory=list)


@dataclass
class Request:
    """One call: its arguments, parsed and with their names checked.

    Attributes
    ----------
    prompt : str
    options : ImageOptions or VideoOptions
    hooks : Hooks
    inputs : Inputs
    """

    prompt: str
    options: ImageOptions | VideoOptions
    hooks: Hooks
    inputs: Inputs
    _built: tuple[Family, ImageGenParams | VideoGenParams] | None = None

    def params(
        self, family: Family, loaded: SDContextParams, lora_dir: str | os.PathLike[str]
    ) -> ImageGenParams | VideoGenParams:
        """Return the engine's parameters, which are built once for a family.

        Raises
        ------
        TypeError, ValueError, FileNotFoundError, UnsupportedError
            A value is invalid, or an option would have no effect with this model.
        """
        if self._built is None or self._built[0] != family:
            self._built = (family, self._build(family, loaded, lora_dir))
        return self._built[1]

    def _build(
        self, family: Family, loaded: SDContextParams, lora_dir: str | os.PathLike[str]
    ) -> ImageGenParams | VideoGenParams:
        self.options = options = self.options.for_model(family.guidance is not None)
        reject_lora_tags(options.negative_prompt or "")
        text, tagged = split_prompt(self.prompt, lora_dir)
        image = self.inputs.image is not None
        if isinstance(options, VideoOptions):
            reject_unused_video_options(options, family, loaded, image=image)
            return video_params(text, options, family, self.inputs, tagged)
        references = bool(self.inputs.references)
        reject_unused_image_options(options, family, loaded, image=image, references=references)
        return image_params(text, options, family, self.inputs, tagged)


def txt2img_request(prompt: str, given: Mapping[str, Any]) -> Request:
    """Parse the arguments of `txt2img`."""
    return _request(ImageOptions, prompt, dict(given), Inputs())


def img2img_request(prompt: str, image: Any, given: Mapping[str, Any]) -> Request:
    """Parse the arguments of `img2img`."""
    options = dict(given)
    pixels = to_pixels(_one(image, options, "image", "init_image", "init_images"))
    return _request(ImageOptions, prompt, options, Inputs(pixels))


def inpaint_request(prompt: str, image: Any, mask_image: Any, given: Mapping[str, Any]) -> Request:
    """Parse the arguments of `inpaint`."""
    options = dict(given)
    pixels = to_pixels(_one(image, options, "image", "init_image", "init_images"))
    mask = to_mask(_one(mask_image, options, "mask_image", "mask"))
    if mask.shape != pixels.shape[:2]:
        raise ValueError(
            f"mask_image has {mask.shape[1]}x{mask.shape[0]} pixels, expected those of image: "
            f"{pixels.shape[1]}x{pixels.shape[0]}"
        )
    return _request(ImageOptions, prompt, options, Inputs(pixels, mask))


def edit_request(prompt: str, images: Any, given: Mapping[str, Any]) -> Request:
    """Parse the arguments of `edit`."""
    options = dict(given)
    references = to_pixels_list(_one(images, options, "images", "image", "ref_images"), "images")
    if not references:
        raise ValueError("images is empty, expected at least one image")
    return _request(ImageOptions, prompt, options, Inputs(references=references))


def txt2vid_request(prompt: str, given: Mapping[str, Any]) -> Request:
    """Parse the arguments of `txt2vid`."""
    return _request(VideoOptions, prompt, dict(given), Inputs())


def img2vid_request(prompt: str, image: Any, given: Mapping[str, Any]) -> Request:
    """Parse the arguments of `img2vid`."""
    options = dict(given)
    pixels = to_pixels(_one(image, options, "image", "init_image"))
    return _request(VideoOptions, prompt, options, Inputs(pixels))


def _request(
    kind: type[ImageOptions] | type[VideoOptions], prompt: str, given: Mapping[str, Any], inputs: Inputs
) -> Request:
    if not isinstance(prompt, str):
        raise TypeError(f"prompt is {prompt!r}, expected a string")
    hooks, rest = split_hooks(given)
    return Request(prompt, options_from(kind, rest), hooks, inputs)


def _one(value: Any, options: dict[str, Any], name: str, *others: str) -> Any:
    """Return an argument that may have been given under another name, and remove that from `options`."""
    for other in others:
        if other in options:
            if value is not None:
                raise TypeError(f"{name} was given twice, once as {other}")
            value = options.pop(other)
            if other == "init_images":  # a list of one, as web interfaces send it
                images = to_pixels_list(value, other)
                if len(images) != 1:
                    raise ValueError(f"{other} has {len(images)} images, expected one")
                (value,) = images
    if value is None:
        raise TypeError(f"{name} is missing")
    return value


def resolved_seed(seed: int | None) -> int:
    """Return the seed; None and negative numbers are replaced by a random one.

    Raises
    ------
    TypeError
    """
    if seed is None:
        return secrets.randbelow(SEEDS)
    if isinstance(seed, bool) or not hasattr(seed, "__index__"):
        raise TypeError(f"seed is {seed!r}, expected an integer")
    return int(seed) if seed >= 0 else secrets.randbelow(SEEDS)


def image_params(
    prompt: str, options: ImageOptions, family: Family, inputs: Inputs, tagged: list[Lora]
) -> ImageGenParams:
    """Return the engine's parameters for images.

    Parameters
    ----------
    prompt : str
        Without LoRAs.
    options : ImageOptions
    family : Family
    inputs : Inputs
    tagged : list of Lora
        The LoRAs of the prompt.

    Returns
    -------
    ImageGenParams
        With width, height and seed resolved.
    """
    width, height = resolved_size(options, family, inputs.image)
    image = None if inputs.image is None else fitted(inputs.image, width, height)
    mask = None
    if inputs.image is not None and inputs.mask is not None:
        frame = inpaint_frame(options, family, inputs.image)
        width, height = frame.width, frame.height
        image, mask = frame.enter(inputs.image), frame.enter(inputs.mask)[:, :, None]
    control = None if options.control_image is None else to_pixels(options.control_image, "control_image")
    strength = options.strength
    if strength is None and inputs.image is not None:
        strength = 1.0 if inputs.mask is not None and family.inpaints else STRENGTH
    resize = options.resize_references
    values: dict[str, Any] = {
        **_common_params(prompt, options, family, tagged, ImageGenParams),
        "width": width,
        "height": height,
        "strength": strength,
        "init_image": image,
        "mask_image": mask,
        "ref_images": inputs.references or None,
        "resize_references": _first(resize, True) if inputs.references else None,
        "control_image": None if control is None else fitted(control, width, height),
        "control_strength": None if control is None else _first(options.control_strength, CONTROL_STRENGTH),
        "pm_params": _photo_maker(options.pm_params),
        "hires": _hires(options.hires),
    }
    return ImageGenParams(**values)


def video_params(
    prompt: str, options: VideoOptions, family: Family, inputs: Inputs, tagged: list[Lora]
) -> VideoGenParams:
    """Return the engine's parameters for a video; parameters as of `image_params`."""
    width, height = resolved_size(options, family, inputs.image)
    end = None if options.end_image is None else to_pixels(options.end_image, "end_image")
    control = [] if options.control_frames is None else to_pixels_list(options.control_frames, "control_frames")
    noisy = SampleParams(
        steps=_first(options.high_noise_steps, NOISY_STEPS_BY_BOUNDARY),
        sampler=sampler_and_scheduler(_first(options.high_noise_sampler, options.sampler), None)[0],
        eta=_first(options.high_noise_eta, options.eta),
        guidance=GuidanceParams(cfg_scale=_first(options.high_noise_cfg_scale, options.cfg_scale, family.cfg_scale)),
    )
    values: dict[str, Any] = {
        **_common_params(prompt, options, family, tagged, VideoGenParams),
        "width": width,
        "height": height,
        "frames": _first(options.frames, family.frames or None),
        "init_image": None if inputs.image is None else fitted(inputs.image, width, height),
        "end_image": None if end is None else fitted(end, width, height),
        "control_frames": [fitted(frame, width, height) for frame in control] or None,
        "high_noise_sample_params": noisy,
    }
    return VideoGenParams(**values)


def _common_params(
    prompt: str, options: Options, family: Family, tagged: list[Lora], kind: type[ImageGenParams] | type[VideoGenParams]
) -> dict[str, Any]:
    return {
        **common(options, kind),
        "prompt": prompt,
        "negative_prompt": options.negative_prompt or "",
        "loras": [*lora_list(_first(options.loras, ())), *tagged],
        "seed": resolved_seed(options.seed),
        "sample_params": _sampling(options, family),
        "vae_tiling": _tiling(options.vae_tiling),
        "cache": _cache(options.cache),
    }


def _skipping(options: Options, family: Family) -> SlgParams | None:
    given = common(options, SlgParams)
    if options.slg_scale is None:
        for name, value in given.items():
            if value is not None:
                raise ValueError(f"{name} was given without slg_scale")
        return None
    if family.is_unet:
        raise UnsupportedError(f"slg_scale was given, but {family.name} models have no layers to skip")
    if options.skip_layers is None:
        given["skip_layers"] = SKIP_LAYERS
    return SlgParams(**given)


def _sampling(options: Options, family: Family) -> SampleParams:
    sampler, scheduler = sampler_and_scheduler(options.sampler, options.scheduler)
    guidance: dict[str, Any] = common(options, GuidanceParams)
    for name in ("cfg_scale", "image_cfg_scale", "guidance"):
        guidance[name] = _first(guidance[name], getattr(family, name))
    steps = _first(options.steps, None if options.sigmas is None else len(options.sigmas) - 1, family.steps)
    values: dict[str, Any] = {
        **common(options, SampleParams),
        "guidance": GuidanceParams(**guidance, slg=_skipping(options, family)),
        "sampler": sampler,
        "scheduler": scheduler,
        "steps": steps,
        "flow_shift": _first(options.flow_shift, family.flow_shift),
    }
    return SampleParams(**values)


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _tiling(value: bool | SDTilingParams | None) -> SDTilingParams | None:
    return SDTilingParams(enabled=value) if isinstance(value, bool) else _enabled(value)


def _photo_maker(value: PhotoMakerParams | None) -> PhotoMakerParams | None:
    if not isinstance(value, PhotoMakerParams) or value.id_images is None:
        return value
    return dataclasses.replace(value, id_images=to_pixels_list(value.id_images, "id_images"))


def _cache(value: str | CacheParams | None) -> CacheParams | None:
    return CacheParams(mode=value) if isinstance(value, str) else value


def _hires(value: float | HiresParams | None) -> HiresParams | None:
    if value is None or isinstance(value, HiresParams):
        return _enabled(value)
    return HiresParams(enabled=True, scale=value)


def _enabled(value: Switched) -> Switched:
    """Enable parameters that were given without the engine's switch."""
    on = isinstance(value, HiresParams | SDTilingParams) and value.enabled is None
    return dataclasses.replace(value, enabled=True) if on else value  # type: ignore[type-var]
