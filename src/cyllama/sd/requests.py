"""What options become for the engine: sizes, seeds and defaults are settled here, before anything is computed."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from cyllama.errors import UnsupportedError
from cyllama.media.image import Pixels, fitted, to_pixels, to_pixels_list
from cyllama.sd.family import Family
from cyllama.sd.loras import lora_list
from cyllama.sd.options import ImageOptions, Options, VideoOptions
from cyllama.sd.params import (
    CacheParams,
    GuidanceParams,
    HiresParams,
    ImageGenParams,
    Lora,
    PhotoMakerParams,
    SampleParams,
    SDTilingParams,
    SlgParams,
    VideoGenParams,
)
from cyllama.sd.samplers import sampler_and_scheduler

__all__ = ["Inputs", "image_request", "in_our_names", "resolved_seed", "resolved_size", "video_request"]

Switched = TypeVar("Switched", HiresParams | None, SDTilingParams | None)
SEEDS = 1 << 32  # as many as the community's tools choose from
TOO_MANY = 2  # a picture with so many times the pixels of the family's size is made smaller
NOISY_STEPS_BY_BOUNDARY = -1
SKIP_LAYERS = (7, 8, 9)  # as the engine's own program has it
STRENGTH = 0.75  # the engine's default
CONTROL_STRENGTH = 0.9  # the engine's default
# Where the engine's name of a parameter is not ours.
OUR_NAMES = {
    "sample_steps": "steps",
    "sample_method": "sampler",
    "txt_cfg": "cfg_scale",
    "img_cfg": "image_cfg_scale",
    "distilled_guidance": "guidance",
    "shifted_timestep": "timestep_shift",
    "custom_sigmas": "sigmas",
    "batch_count": "batch_size",
    "video_frames": "frames",
    "preview_mode": "preview",
    "vae_tiling_params": "vae_tiling",
    "layers": "skip_layers",
    "layer_start": "skip_layer_start",
    "layer_end": "skip_layer_end",
}


@dataclass
class Inputs:
    """The pictures that a request starts from.

    Attributes
    ----------
    image : ndarray or None
        (height, width, 3), to start from.
    mask : ndarray or None
        (height, width), white where to paint.
    references : list of ndarray
    """

    image: Pixels | None = None
    mask: Pixels | None = None
    references: list[Pixels] = field(default_factory=list)


@contextlib.contextmanager
def in_our_names() -> Iterator[None]:
    """Name a refused value as the caller knows it: the messages of the low level begin with the engine's name."""
    try:
        yield
    except (TypeError, ValueError) as error:
        name = re.match(r"\w*", str(error))[0]  # type: ignore[index]
        if type(error) in (TypeError, ValueError) and name in OUR_NAMES:
            raise type(error)(OUR_NAMES[name] + str(error)[len(name) :]) from None
        raise


def resolved_seed(seed: int | None) -> int:
    """The seed; None and negative numbers are any.

    Raises
    ------
    TypeError
    """
    if seed is None:
        return secrets.randbelow(SEEDS)
    if isinstance(seed, bool) or not hasattr(seed, "__index__"):
        raise TypeError(f"seed is {seed!r}, expected an integer")
    return int(seed) if seed >= 0 else secrets.randbelow(SEEDS)


def resolved_size(options: Options, family: Family, image: Pixels | None) -> tuple[int, int]:
    """Width and height: what was given, else those of the picture, else the family's; multiples as the engine needs.

    A picture with more than twice the pixels of the family's size is reduced to that number. If one side is given, a
    picture keeps its proportions.

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


def image_request(
    prompt: str, options: ImageOptions, family: Family, inputs: Inputs, tagged: list[Lora]
) -> ImageGenParams:
    """What the engine is told for pictures.

    Parameters
    ----------
    prompt : str
        Without LoRAs.
    options : ImageOptions
    family : Family
    inputs : Inputs
    tagged : list of Lora
        Those of the prompt.

    Returns
    -------
    ImageGenParams
        With width, height and seed settled.
    """
    width, height = resolved_size(options, family, inputs.image)
    control = None if options.control_image is None else to_pixels(options.control_image, "control_image")
    return ImageGenParams(
        prompt=prompt,
        negative_prompt=options.negative_prompt,
        loras=[*lora_list(options.loras), *tagged],
        clip_skip=options.clip_skip,
        width=width,
        height=height,
        seed=resolved_seed(options.seed),
        batch_count=options.batch_size,
        strength=STRENGTH if options.strength is None and inputs.image is not None else options.strength,
        init_image=None if inputs.image is None else fitted(inputs.image, width, height),
        mask_image=None if inputs.mask is None else fitted(inputs.mask, width, height)[:, :, None],
        ref_images=inputs.references or None,
        auto_resize_ref_image=_first(options.resize_references, True) if inputs.references else None,
        increase_ref_index=options.increase_ref_index,
        control_image=None if control is None else fitted(control, width, height),
        control_strength=None if control is None else _first(options.control_strength, CONTROL_STRENGTH),
        sample_params=_sampling(options, family),
        pm_params=_photo_maker(options.pm_params),
        vae_tiling_params=_tiling(options.vae_tiling),
        cache=_cache(options.cache),
        hires=_hires(options.hires),
    )


def video_request(
    prompt: str, options: VideoOptions, family: Family, inputs: Inputs, tagged: list[Lora]
) -> VideoGenParams:
    """What the engine is told for a video; parameters as of `image_request`."""
    width, height = resolved_size(options, family, inputs.image)
    end = None if options.end_image is None else to_pixels(options.end_image, "end_image")
    control = [] if options.control_frames is None else to_pixels_list(options.control_frames, "control_frames")
    noisy = SampleParams(
        sample_steps=_first(options.high_noise_steps, NOISY_STEPS_BY_BOUNDARY),
        sample_method=sampler_and_scheduler(_first(options.high_noise_sampler, options.sampler), None)[0],
        eta=_first(options.high_noise_eta, options.eta),
        guidance=GuidanceParams(txt_cfg=_first(options.high_noise_cfg_scale, options.cfg_scale, family.cfg_scale)),
    )
    return VideoGenParams(
        prompt=prompt,
        negative_prompt=options.negative_prompt,
        loras=[*lora_list(options.loras), *tagged],
        clip_skip=options.clip_skip,
        width=width,
        height=height,
        seed=resolved_seed(options.seed),
        video_frames=_first(options.frames, family.frames or None),
        init_image=None if inputs.image is None else fitted(inputs.image, width, height),
        end_image=None if end is None else fitted(end, width, height),
        control_frames=[fitted(frame, width, height) for frame in control] or None,
        vace_strength=options.vace_strength,
        moe_boundary=options.moe_boundary,
        sample_params=_sampling(options, family),
        high_noise_sample_params=noisy,
        vae_tiling_params=_tiling(options.vae_tiling),
        cache=_cache(options.cache),
    )


def _skipping(options: Options, family: Family) -> SlgParams | None:
    if options.slg_scale is None:
        for name in ("skip_layers", "skip_layer_start", "skip_layer_end"):
            if getattr(options, name) is not None:
                raise ValueError(f"{name} was given without slg_scale")
        return None
    if family.is_unet:
        raise UnsupportedError(f"slg_scale was given, but {family.name} models have no layers that can be skipped")
    return SlgParams(
        scale=options.slg_scale,
        layers=SKIP_LAYERS if options.skip_layers is None else options.skip_layers,
        layer_start=options.skip_layer_start,
        layer_end=options.skip_layer_end,
    )


def _sampling(options: Options, family: Family) -> SampleParams:
    sampler, scheduler = sampler_and_scheduler(options.sampler, options.scheduler)
    guidance = GuidanceParams(
        txt_cfg=_first(options.cfg_scale, family.cfg_scale),
        img_cfg=_first(options.image_cfg_scale, family.image_cfg_scale),
        distilled_guidance=_first(options.guidance, family.guidance),
        slg=_skipping(options, family),
    )
    return SampleParams(
        guidance=guidance,
        sample_method=sampler,
        scheduler=scheduler,
        sample_steps=_first(options.steps, None if options.sigmas is None else len(options.sigmas) - 1, family.steps),
        custom_sigmas=options.sigmas,
        eta=options.eta,
        flow_shift=_first(options.flow_shift, family.flow_shift),
        shifted_timestep=options.timestep_shift,
    )


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
    """The engine's switch, which is off by default, of what the caller has given."""
    on = isinstance(value, HiresParams | SDTilingParams) and value.enabled is None
    return dataclasses.replace(value, enabled=True) if on else value  # type: ignore[type-var]
