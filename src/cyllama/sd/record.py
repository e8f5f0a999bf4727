"""What a picture or a video was made with, under the names of the options and with the defaults filled in."""

from __future__ import annotations

from typing import Any

import numpy as np

from cyllama.sd._context import SDContext
from cyllama.sd._enums import (
    CacheMode,
    HiresUpscaler,
    enum_value,
    sd_hires_upscaler_name,
    sd_sample_method_name,
    sd_scheduler_name,
)
from cyllama.sd.loading import ModelFiles
from cyllama.sd.loras import prompt_with_loras
from cyllama.sd.params import HiresParams, ImageGenParams, SampleParams, VideoGenParams

__all__ = ["recorded"]

Parameters = dict[str, Any]


def recorded(
    request: ImageGenParams | VideoGenParams, context: SDContext, files: ModelFiles, *, image: bool
) -> Parameters:
    """The parameters of a result.

    Parameters
    ----------
    request : ImageGenParams or VideoGenParams
        What the engine was told.
    context : SDContext
        The model, for its own sampler and scheduler.
    files : ModelFiles
        Where it came from.
    image : bool
        Whether there was a picture to start from.

    Returns
    -------
    dict
        None where an option had no part in it.
    """
    from cyllama import __version__

    sampling = request.sample_params
    assert sampling is not None
    used = {
        "prompt": prompt_with_loras(request.prompt or "", request.loras or ()),
        "negative_prompt": request.negative_prompt,
        **_sampling(sampling, context),
        "seed": request.seed,
        "width": request.width,
        "height": request.height,
        "model": files.name,
        "vae": files.vae_name,
        "strength": request.strength if image else None,
        "clip_skip": request.clip_skip,
        "vae_tiling": True if request.vae_tiling_params is not None and request.vae_tiling_params.enabled else None,
        "cache": _cache(request),
        **(_of_pictures(request) if isinstance(request, ImageGenParams) else _of_videos(request)),
        "version": f"cyllama {__version__}",
    }
    # NumPy's numbers were as welcome as others, and JSON takes none of them
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in used.items()}


def _sampling(sampling: SampleParams, context: SDContext) -> Parameters:
    guidance = sampling.guidance
    assert guidance is not None
    sampler = context.default_sample_method if sampling.sample_method is None else sampling.sample_method
    scheduler = context.default_scheduler(sampler) if sampling.scheduler is None else sampling.scheduler
    return {
        "steps": sampling.sample_steps,
        "sampler": sd_sample_method_name(sampler),
        "scheduler": None if sampling.custom_sigmas is not None else sd_scheduler_name(scheduler),
        "sigmas": None if sampling.custom_sigmas is None else list(map(float, sampling.custom_sigmas)),
        "cfg_scale": guidance.txt_cfg,
        "guidance": guidance.distilled_guidance,
        "image_cfg_scale": guidance.img_cfg,
        "eta": sampling.eta,
        "flow_shift": sampling.flow_shift,
        "timestep_shift": sampling.shifted_timestep,
        "slg_scale": None if guidance.slg is None else guidance.slg.scale,
        "skip_layers": None if guidance.slg is None else list(map(int, guidance.slg.layers or ())),
        "skip_layer_start": None if guidance.slg is None else guidance.slg.layer_start,
        "skip_layer_end": None if guidance.slg is None else guidance.slg.layer_end,
    }


def _cache(request: ImageGenParams | VideoGenParams) -> str | None:
    mode = None if request.cache is None else request.cache.mode
    if mode is None:
        return None
    name = CacheMode(enum_value(CacheMode, mode, "cache")).name.lower()
    return None if name == "disabled" else name


def _of_pictures(request: ImageGenParams) -> Parameters:
    hires = request.hires if request.hires is not None and request.hires.enabled else None
    return {"control_strength": request.control_strength, **({} if hires is None else _second_pass(hires))}


def _second_pass(hires: HiresParams) -> Parameters:
    sized = hires.target_width or hires.target_height
    upscaler = None if hires.upscaler is None else enum_value(HiresUpscaler, hires.upscaler, "upscaler")
    return {
        "hires": None if sized else hires.scale,
        "hires_size": f"{hires.target_width or sized}x{hires.target_height or sized}" if sized else None,
        "hires_upscaler": None if upscaler is None else sd_hires_upscaler_name(upscaler),
        "hires_steps": hires.steps or None,
        "hires_strength": hires.denoising_strength,
    }


def _of_videos(request: VideoGenParams) -> Parameters:
    noisy = request.high_noise_sample_params
    return {
        "vace_strength": None if request.control_frames is None else request.vace_strength,
        "moe_boundary": request.moe_boundary,
        "high_noise_steps": None if noisy is None or (noisy.sample_steps or 0) < 1 else noisy.sample_steps,
    }
