"""Options that would have no effect are refused, before anything is computed: the engine leaves them out in silence."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

from cyllama.errors import UnsupportedError
from cyllama.sd._enums import CacheMode, enum_value
from cyllama.sd.family import Family
from cyllama.sd.options import ImageOptions, Options, VideoOptions
from cyllama.sd.params import CacheParams, ImageGenParams, SDContextParams, VideoGenParams

__all__ = ["refuse_idle_image", "refuse_idle_parts", "refuse_idle_video", "warn_of_idle_prompt"]

CACHES_OF_UNETS = (CacheMode.DISABLED, CacheMode.UCACHE, CacheMode.SPECTRUM)
PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def refuse_idle_parts(params: SDContextParams, family: Family) -> None:
    """Refuse parts that the engine takes for UNets only: it forgets them, or fails in the midst of a picture.

    Raises
    ------
    UnsupportedError
    """
    for name in ("embeddings", "control_net_path"):
        if getattr(params, name) and not family.is_unet:
            what = name.removesuffix("_path")
            raise UnsupportedError(f"{what} was given, but {_named(family)} takes none: only SD 1, SD 2 and SDXL do")
    if params.photo_maker_path and not family.name.startswith("SDXL"):
        raise UnsupportedError(f"photo_maker was given, but {_named(family)} takes none: only SDXL does")


def refuse_idle_image(
    options: ImageOptions, family: Family, loaded: SDContextParams, *, image: bool, references: bool
) -> None:
    """Refuse what would not change a picture.

    Parameters
    ----------
    options : ImageOptions
    family : Family
    loaded : SDContextParams
        What the model was loaded with.
    image, references : bool
        Whether there is a picture to start from, and whether there are references.

    Raises
    ------
    ValueError
        An option was given without the one that it belongs to.
    UnsupportedError
        The model has nothing that the option could change.
    """
    _refuse_in_common(options, family)
    if not image:
        _refuse(options, "strength", "there is no picture that it could change")
    if not references:
        _refuse(options, "resize_references", "there are no reference pictures")
        _refuse(options, "increase_ref_index", "there are no reference pictures")
    if options.control_image is None:
        _refuse(options, "control_strength", "there is no control_image")
    elif loaded.control_net_path is None and not family.controls:
        raise UnsupportedError("control_image was given, but the model was loaded without control_net")
    if options.pm_params is not None and loaded.photo_maker_path is None:
        raise UnsupportedError("pm_params was given, but the model was loaded without photo_maker")
    if options.timestep_shift and not family.name.startswith("SDXL"):
        raise UnsupportedError(f"timestep_shift was given, but it is for SDXL, not for {family.name} models")


def refuse_idle_video(options: VideoOptions, family: Family, loaded: SDContextParams, *, image: bool) -> None:
    """Refuse what would not change a video; parameters and errors as of `refuse_idle_image`."""
    _refuse_in_common(options, family)
    if family.video_inputs is not None:
        given = {"image": image, "end_image": options.end_image is not None,
                 "control_frames": options.control_frames is not None}  # fmt: skip
        for name in [name for name, value in given.items() if value and name not in family.video_inputs]:
            known = f"of {', '.join(family.video_inputs)} and " if family.video_inputs else "of "
            raise UnsupportedError(f"{name} was given, but this {family.name} model makes videos {known}text alone")
    if options.control_frames is None:
        _refuse(options, "vace_strength", "there are no control_frames")
    if loaded.high_noise_diffusion_model_path is None:
        for name in (
            "moe_boundary",
            "high_noise_steps",
            "high_noise_cfg_scale",
            "high_noise_sampler",
            "high_noise_eta",
        ):
            _refuse(options, name, "the model was loaded without high_noise_diffusion_model")


def warn_of_idle_prompt(request: ImageGenParams | VideoGenParams) -> None:
    """Warn of a negative prompt that nobody reads: it is what classifier-free guidance leads away from."""
    guidance = request.sample_params.guidance if request.sample_params is not None else None
    if request.negative_prompt and guidance is not None and guidance.txt_cfg == 1 and guidance.img_cfg in (None, 1):
        warnings.warn(
            "negative_prompt has no effect while cfg_scale is 1; a higher one takes twice the time", stacklevel=_level()
        )


def _level() -> int:
    """How far up the code is that called this package: that is what a warning shows."""
    level, frame = 0, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
        level, frame = level + 1, frame.f_back
    return level


def _refuse_in_common(options: Options, family: Family) -> None:
    if options.guidance is not None and family.guidance is None:
        raise UnsupportedError(f"guidance was given, but {_named(family)} has no distilled guidance, only cfg_scale")
    if options.image_cfg_scale is not None and not family.edits:
        raise UnsupportedError(f"image_cfg_scale was given, but {_named(family)} has no guidance by a picture")
    if options.flow_shift is not None and family.is_unet:
        raise UnsupportedError(f"flow_shift was given, but {_named(family)} is no flow model")
    if options.clip_skip not in (None, -1) and not (family.is_unet or family.name == "SD3.x"):
        raise UnsupportedError(f"clip_skip was given, but {_named(family)} reads no layer of CLIP but the last")
    if options.sigmas is not None:
        _refuse(options, "scheduler", "sigmas are the noise of each step already")
        if options.steps is not None and options.steps != len(options.sigmas) - 1:
            raise ValueError(
                f"steps is {options.steps}, but sigmas has {len(options.sigmas)} values: one more than steps"
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
        raise UnsupportedError(f"cache is {mode.name.lower()!r}, which {_named(family)} cannot use")


def _refuse(options: Options, name: str, why: str) -> None:
    value = getattr(options, name)
    if value is not None:
        raise ValueError(f"{name} is {value!r}, but {why}")


def _named(family: Family) -> str:
    return f"this model ({', '.join(filter(None, [family.name, family.about]))})"
