"""Reject options that would have no effect, before anything is computed: the engine silently ignores them."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

from cyllama._params import enum_value
from cyllama.errors import UnsupportedError
from cyllama.sd._enums import CacheMode
from cyllama.sd.families import Family
from cyllama.sd.options import ImageOptions, Options, VideoOptions
from cyllama.sd.params import CacheParams, ImageGenParams, SDContextParams, VideoGenParams

__all__ = [
    "reject_unused_components",
    "reject_unused_image_options",
    "reject_unused_video_options",
    "warn_unused_negative_prompt",
]

CACHES_OF_UNETS = (CacheMode.DISABLED, CacheMode.UCACHE, CacheMode.SPECTRUM)
PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def reject_unused_components(params: SDContextParams, family: Family) -> None:
    """Reject components that the engine supports for UNets only: it ignores them or fails while it generates.

    Raises
    ------
    UnsupportedError
    """
    for name in ("embeddings", "control_net_path"):
        if getattr(params, name) and not family.is_unet:
            what = name.removesuffix("_path")
            raise UnsupportedError(
                f"{what} was given, but {_named(family)} does not support it: only SD 1, SD 2 and SDXL do"
            )
    if params.photo_maker_path and not family.name.startswith("SDXL"):
        raise UnsupportedError(f"photo_maker was given, but {_named(family)} does not support it: only SDXL does")


def reject_unused_image_options(
    options: ImageOptions, family: Family, loaded: SDContextParams, *, image: bool, references: bool
) -> None:
    """Reject options that would not change an image.

    Parameters
    ----------
    options : ImageOptions
    family : Family
    loaded : SDContextParams
        Parameters that the model was loaded with.
    image, references : bool
        Whether the request has an image to start from, and reference images.

    Raises
    ------
    ValueError
        An option was given without the one that it needs.
    UnsupportedError
        The model does not support the option.
    """
    _reject_in_common(options, family)
    if not image:
        _reject(options, "strength", "the request has no image to change")
    if not references:
        _reject(options, "resize_references", "the request has no reference images")
        _reject(options, "increase_ref_index", "the request has no reference images")
    if options.control_image is None:
        _reject(options, "control_strength", "the request has no control_image")
    elif loaded.control_net_path is None and not family.controls:
        raise UnsupportedError("control_image was given, but the model was loaded without control_net")
    if options.pm_params is not None and loaded.photo_maker_path is None:
        raise UnsupportedError("pm_params was given, but the model was loaded without photo_maker")
    if options.timestep_shift and not family.name.startswith("SDXL"):
        raise UnsupportedError(f"timestep_shift was given, but only SDXL models support it, not {family.name}")


def reject_unused_video_options(options: VideoOptions, family: Family, loaded: SDContextParams, *, image: bool) -> None:
    """Reject options that would not change a video; parameters and errors as of `reject_unused_image_options`."""
    _reject_in_common(options, family)
    if family.video_inputs is not None:
        given = {"image": image, "end_image": options.end_image is not None,
                 "control_frames": options.control_frames is not None}  # fmt: skip
        for name in [name for name, value in given.items() if value and name not in family.video_inputs]:
            known = f"of {', '.join(family.video_inputs)} and " if family.video_inputs else "of "
            raise UnsupportedError(f"{name} was given, but this {family.name} model makes videos {known}text only")
    if options.control_frames is None:
        _reject(options, "vace_strength", "the request has no control_frames")
    if loaded.high_noise_diffusion_model_path is None:
        for name in (
            "moe_boundary",
            "high_noise_steps",
            "high_noise_cfg_scale",
            "high_noise_sampler",
            "high_noise_eta",
        ):
            _reject(options, name, "the model was loaded without high_noise_diffusion_model")


def warn_unused_negative_prompt(request: ImageGenParams | VideoGenParams) -> None:
    """Warn of a negative prompt without classifier-free guidance, which alone uses it."""
    guidance = request.sample_params.guidance if request.sample_params is not None else None
    if not request.negative_prompt or guidance is None:
        return
    if guidance.cfg_scale == 1 and guidance.image_cfg_scale in (None, 1):
        warnings.warn(
            "negative_prompt has no effect while cfg_scale is 1; a higher one takes twice the time", stacklevel=_level()
        )


def _level() -> int:
    """Return the stack level of the code that called this package, for the warning."""
    level, frame = 0, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
        level, frame = level + 1, frame.f_back
    return level


def _reject_in_common(options: Options, family: Family) -> None:
    if options.guidance is not None and family.guidance is None:
        raise UnsupportedError(f"guidance was given, but {_named(family)} has no distilled guidance, only cfg_scale")
    if options.image_cfg_scale is not None and not family.edits:
        raise UnsupportedError(f"image_cfg_scale was given, but {_named(family)} has no image guidance")
    if options.flow_shift is not None and family.is_unet:
        raise UnsupportedError(f"flow_shift was given, but {_named(family)} is not a flow model")
    if options.clip_skip not in (None, -1) and not (family.is_unet or family.name == "SD3.x"):
        raise UnsupportedError(f"clip_skip was given, but {_named(family)} uses only the last layer of CLIP")
    if options.sigmas is not None:
        _reject(options, "scheduler", "sigmas set the noise of each step")
        if options.steps is not None and options.steps != len(options.sigmas) - 1:
            raise ValueError(
                f"steps is {options.steps}, but sigmas has {len(options.sigmas)} values, expected one more than steps"
            )
    _check_cache(options.cache, family)


def _check_cache(cache: Any, family: Family) -> None:
    if isinstance(cache, CacheParams):
        if cache.mode is None:
            raise ValueError("cache has no mode, expected one, such as CacheParams(mode='easycache')")
        cache = cache.mode
    if cache is None:
        return
    mode = CacheMode(enum_value(CacheMode, cache, "cache"))
    if (family.is_unet and mode not in CACHES_OF_UNETS) or (not family.is_unet and mode == CacheMode.UCACHE):
        raise UnsupportedError(f"cache is {mode.name.lower()!r}, which {_named(family)} does not support")


def _reject(options: Options, name: str, why: str) -> None:
    value = getattr(options, name)
    if value is not None:
        raise ValueError(f"{name} is {value!r}, but {why}")


def _named(family: Family) -> str:
    return f"this model ({', '.join(filter(None, [family.name, family.about]))})"
