"""Samplers and schedulers under the names that AUTOMATIC1111 uses, such as "DPM++ 2M Karras"."""

from __future__ import annotations

from cyllama._params import enum_value
from cyllama.sd._enums import (
    HiresUpscaler,
    SampleMethod,
    Scheduler,
    engine_names,
    sd_hires_upscaler_name,
    sd_sample_method_name,
    sd_scheduler_name,
)

__all__ = [
    "HIRES_UPSCALERS",
    "sampler_and_scheduler",
    "sampler_label",
    "sampler_labels",
    "scheduler_label",
    "scheduler_labels",
]

HIRES_UPSCALERS = tuple(
    sd_hires_upscaler_name(kind) for kind in HiresUpscaler if kind not in (HiresUpscaler.NONE, HiresUpscaler.MODEL)
)
"""Names of the methods that enlarge an image between two passes, without those that need a file."""

_SAMPLERS = {
    "euler": "Euler",
    "euler_a": "Euler a",
    "heun": "Heun",
    "dpm2": "DPM2",
    "dpm++2s_a": "DPM++ 2S a",
    "dpm++2m": "DPM++ 2M",
    "dpm++2mv2": "DPM++ 2M v2",
    "ipndm": "iPNDM",
    "ipndm_v": "iPNDM v",
    "lcm": "LCM",
    "ddim_trailing": "DDIM",
    "tcd": "TCD",
    "res_multistep": "Res Multistep",
    "res_2s": "Res 2S",
    "er_sde": "ER SDE",
}
_SCHEDULERS = {
    "discrete": "Normal",
    "karras": "Karras",
    "exponential": "Exponential",
    "ays": "Align Your Steps",
    "gits": "GITS",
    "sgm_uniform": "SGM Uniform",
    "simple": "Simple",
    "smoothstep": "Smoothstep",
    "kl_optimal": "KL Optimal",
    "lcm": "LCM",
    "bong_tangent": "Bong Tangent",
}
# Aliases.
_MORE_SAMPLERS = {
    "k_euler": "euler",
    "k_euler_a": "euler_a",
    "euler ancestral": "euler_a",
    "euler_ancestral": "euler_a",
    "k_heun": "heun",
    "dpm_2": "dpm2",
    "k_dpm_2": "dpm2",
    "dpm++ 2s": "dpm++2s_a",
    "dpmpp_2s_ancestral": "dpm++2s_a",
    "k_dpmpp_2s_a": "dpm++2s_a",
    "dpmpp_2m": "dpm++2m",
    "k_dpmpp_2m": "dpm++2m",
    "k_lcm": "lcm",
}
_MORE_SCHEDULERS = {"ays": "ays", "kl_optimal": "kl_optimal", "uniform": "sgm_uniform"}


def sampler_label(sampler: int | str) -> str:
    """Return the community's name of a sampler: ``"euler_a"`` is ``"Euler a"``."""
    name = sd_sample_method_name(sampler)
    return _SAMPLERS.get(name, name)


def scheduler_label(scheduler: int | str) -> str:
    """Return the community's name of a scheduler: ``"karras"`` is ``"Karras"``."""
    name = sd_scheduler_name(scheduler)
    return _SCHEDULERS.get(name, name)


def sampler_labels() -> dict[str, str]:
    """Return the community's name of each sampler by the engine's."""
    return {name: sampler_label(name) for name in engine_names(SampleMethod)}


def scheduler_labels() -> dict[str, str]:
    """Return the community's name of each scheduler by the engine's."""
    return {name: scheduler_label(name) for name in engine_names(Scheduler)}


def sampler_and_scheduler(
    sampler: int | str | None, scheduler: int | str | None
) -> tuple[SampleMethod | None, Scheduler | None]:
    """Return the engine's values of a sampler and a scheduler.

    Parameters
    ----------
    sampler, scheduler : int, str or None
        The engine's names (``"dpm++2m"``, ``"karras"``), those of ``SampleMethod`` and ``Scheduler``, or the
        community's (``"DPM++ 2M"``, ``"DPM++ 2M Karras"``); None: the model's default.

    Returns
    -------
    SampleMethod or None
    Scheduler or None

    Raises
    ------
    TypeError, ValueError
        A name is unknown; the nearest is named.
    """
    if isinstance(sampler, str):
        known = {label.casefold(): name for name, label in _SAMPLERS.items()} | _MORE_SAMPLERS
        text = sampler.casefold().strip()
        for name, label in _SCHEDULERS.items():
            if scheduler is None and text.endswith(f" {label.casefold()}") and text not in known:
                scheduler, text = name, text[: -len(label) - 1]
        sampler = known.get(text, text)
    if isinstance(scheduler, str):
        text = scheduler.casefold().strip()
        if text in ("automatic", "default", ""):
            scheduler = None
        else:
            known = {label.casefold(): name for name, label in _SCHEDULERS.items()} | _MORE_SCHEDULERS
            scheduler = known.get(text, text)
    if sampler in ("default", ""):
        sampler = None
    return (
        None if sampler is None else SampleMethod(enum_value(SampleMethod, sampler, "sampler")),
        None if scheduler is None else Scheduler(enum_value(Scheduler, scheduler, "scheduler")),
    )
