"""Options of images and videos, under the names that the community uses.

Those that are parameters of the engine are declared in ``params.py``, the others here. The keyword arguments of
`txt2img` and the other functions, the flags of the command line and the tables of the documentation are made from them.
``None`` is the default of the model's family.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from cyllama._params import aliases_of, check_names, names_of, param, resolve_aliases
from cyllama.sd.params import (
    MAX_STEPS,
    CacheParams,
    GuidanceFields,
    HiresParams,
    ImageFields,
    PhotoMakerParams,
    RequestFields,
    SamplingFields,
    SDContextParams,
    SDTilingParams,
    SlgParams,
    VideoFields,
)

__all__ = ["MODEL_OPTIONS", "ImageOptions", "Options", "VideoOptions", "model_params", "options_from"]

LoraList = Sequence[tuple[str | os.PathLike[str], float] | str | os.PathLike[str]] | Mapping[Any, float]
Kind = TypeVar("Kind", bound="Options")

# Callbacks, which are no options; see callbacks.py.
HOOKS = ("on_step", "on_preview", "cancel", "progress", "callback_on_step_end")
# Images, which are arguments of some functions.
IMAGES = ("image", "images", "init_image", "init_images", "ref_images", "mask_image", "mask")
OUTPUT_TYPES = ("pil", "np")


@dataclass(kw_only=True, repr=False)
class Options(RequestFields, SamplingFields, GuidanceFields, SlgParams):
    """Options of images and of videos."""

    guidance_scale: float | None = param(
        "as diffusers: guidance of models with distilled guidance, cfg_scale of others", flag=False
    )
    loras: LoraList | None = param(
        "LoRAs: (path, weight); <lora:name:weight> in the prompt does the same", flag=False, aliases=("lora",)
    )
    vae_tiling: bool | SDTilingParams | None = param("compute the VAE in tiles, which needs less memory", kind="bool",
                                                     main="enabled", aliases=("vae_tiling_params",))  # fmt: skip
    cache: str | CacheParams | None = param("reuse steps that change little, such as easycache", kind="text",
                                            main="mode", aliases=("cache_mode",))  # fmt: skip
    preview: str | int | None = param("method of previews: proj, tae or vae", kind="text", aliases=("preview_method",))
    preview_interval: int | None = param("steps between two previews; default: 1", low=1, high=MAX_STEPS)
    output_type: str = param("pil: Pillow images; np: arrays (height, width, 3), uint8", "pil", choices=OUTPUT_TYPES,
                             flag=False)  # fmt: skip

    def for_model(self: Kind, distilled: bool) -> Kind:
        """Return the options with `guidance_scale` under the name that it stands for."""
        if self.guidance_scale is None:
            return self
        name = "guidance" if distilled else "cfg_scale"
        if getattr(self, name) is not None:
            raise TypeError(f"{name} was given twice, once as guidance_scale")
        values: dict[str, Any] = {"guidance_scale": None, name: self.guidance_scale}
        return replace(self, **values)


@dataclass(kw_only=True, repr=False)
class ImageOptions(Options, ImageFields):
    """Options of images."""

    control_image: Any = param("image for ControlNet", kind="path")
    hires: float | HiresParams | None = param("second pass in a size this many times larger", kind="float",
                                              main="scale", aliases=("hr_scale", "hires_scale"))  # fmt: skip
    pm_params: PhotoMakerParams | None = param("likeness of a person (models loaded with photo_maker)", prefix="pm")


@dataclass(kw_only=True, repr=False)
class VideoOptions(Options, VideoFields):
    """Options of videos."""

    fps: int | None = param("frames per second for playing")
    end_image: Any = param("last frame", kind="path")
    control_frames: Any = param("control frames (VACE)", kind="path", nargs="+")
    high_noise_steps: int | None = param("steps with the high-noise model")
    high_noise_cfg_scale: float | None = param("guidance of the high-noise model")
    high_noise_sampler: int | str | None = param("sampler of the high-noise model", kind="text")
    high_noise_eta: float | None = param("noise added by that sampler")


MODEL_OPTIONS: dict[str, str] = {
    **{name.removesuffix("_path"): name for name in SDContextParams.__dataclass_fields__},
    **{name: name for name in SDContextParams.__dataclass_fields__},
    "type": "wtype",
}
"""Keyword arguments of `StableDiffusion`, and the fields of `SDContextParams` that they set."""


def options_from(kind: type[Kind], given: Mapping[str, Any]) -> Kind:
    """Return the options from keyword arguments, under any of their names.

    Parameters
    ----------
    kind : type
        ImageOptions or VideoOptions.
    given : mapping

    Raises
    ------
    TypeError
        An option is unknown (the nearest is named), or was given under two names.
    ValueError
        A value is invalid. The engine's own parameters are checked where they are filled in.
    """
    aliases = aliases_of(kind)
    values = resolve_aliases(given, aliases)
    for name in values.keys() - names_of(kind):
        if name in IMAGES:
            raise TypeError(f"{kind.__name__} has no option {name!r}; img2img, inpaint and edit take images")
        if name in MODEL_OPTIONS or name == "lora_dir":
            raise TypeError(
                f"{kind.__name__} has no option {name!r}; it is an option of the model: StableDiffusion(model, ...)"
            )
        check_names((name,), names_of(kind), kind.__name__, others=(*aliases, *HOOKS, *MODEL_OPTIONS))
    seed: Any = values.get("seed")
    if callable(getattr(seed, "initial_seed", None)):  # a generator of torch
        values["seed"] = seed.initial_seed()
    options = kind(**{name: value for name, value in values.items() if value is not None})
    if options.output_type not in OUTPUT_TYPES:
        raise ValueError(f"output_type is {options.output_type!r}, expected 'pil' or 'np'")
    return options


def model_params(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields of `SDContextParams` from keyword arguments such as ``vae`` or ``vae_path``.

    Raises
    ------
    TypeError
        An option is unknown (the nearest is named), or was given under two names.
    """
    check_names(given, MODEL_OPTIONS.keys(), "StableDiffusion")
    return resolve_aliases(given, MODEL_OPTIONS)
