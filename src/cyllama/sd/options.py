"""The options of pictures and videos: the only list of them, under the names that the community uses.

The keyword arguments of `txt2img` and its kin, the flags of the command line and the names in messages come from here.
``None`` is the default of the model's family. What they become for the engine stands in ``requests.py``.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from cyllama.sd.params import CacheParams, HiresParams, PhotoMakerParams, SDContextParams, SDTilingParams

__all__ = ["MODEL_OPTIONS", "ImageOptions", "Options", "VideoOptions", "known", "model_params", "options_from"]

LoraList = Sequence[tuple[str | os.PathLike[str], float] | str | os.PathLike[str]] | Mapping[Any, float]
Kind = TypeVar("Kind", bound="Options")

# Other names of the same thing: diffusers', AUTOMATIC1111's, and those of the engine's own program.
ALIASES = {
    "num_inference_steps": "steps",
    "sample_steps": "steps",
    "txt_cfg": "cfg_scale",
    "true_cfg_scale": "cfg_scale",
    "distilled_cfg_scale": "guidance",
    "distilled_guidance": "guidance",
    "image_guidance_scale": "image_cfg_scale",
    "img_cfg": "image_cfg_scale",
    "sampler_name": "sampler",
    "sampler_index": "sampler",
    "sample_method": "sampler",
    "schedule": "scheduler",
    "scheduler_type": "scheduler",
    "custom_sigmas": "sigmas",
    "shifted_timestep": "timestep_shift",
    "generator": "seed",
    "num_images_per_prompt": "batch_size",
    "batch_count": "batch_size",
    "n_iter": "batch_size",
    "denoising_strength": "strength",
    "lora": "loras",
    "controlnet_conditioning_scale": "control_strength",
    "auto_resize_ref_image": "resize_references",
    "hr_scale": "hires",
    "hires_scale": "hires",
    "vae_tiling_params": "vae_tiling",
    "cache_mode": "cache",
    "preview_method": "preview",
    "num_frames": "frames",
    "video_frames": "frames",
}
# What is no option but a callback; see hooks.py.
HOOKS = ("on_step", "on_preview", "cancel", "progress", "callback_on_step_end")
# Pictures that are arguments of some functions, and no option of the others.
PICTURES = ("image", "images", "init_image", "init_images", "ref_images", "mask_image", "mask")
# diffusers' FLUX pipelines mean the distilled guidance by it, the others classifier-free guidance.
EITHER_GUIDANCE = "guidance_scale"


def _option(default: Any, help_text: str, kind: type | None = None, **metadata: Any) -> Any:
    """A field; `kind` is the type of its flag on the command line, None if it has no flag.

    `more` is the class of the parameters that it may be instead, and `main` the one of them that `kind` stands for.
    """
    return field(default=default, metadata={"help": help_text, "kind": kind, **metadata})


@dataclass(kw_only=True, frozen=True)
class Options:
    """What pictures and videos have in common."""

    negative_prompt: str = _option("", "what is not to be seen", str, short="n")
    width: int | None = _option(None, "pixels; rounded up to the model's multiple", int, short="W")
    height: int | None = _option(None, "pixels; rounded up to the model's multiple", int, short="H")
    steps: int | None = _option(None, "steps of the sampler", int)
    cfg_scale: float | None = _option(None, "how closely the prompt is followed; 1: no guidance", float)
    guidance: float | None = _option(None, "distilled guidance (FLUX)", float)
    image_cfg_scale: float | None = _option(None, "how closely the picture is followed (edit models)", float)
    sampler: int | str | None = _option(None, "sampler, such as euler_a or 'DPM++ 2M Karras'", str)
    scheduler: int | str | None = _option(None, "noise of each step, such as karras", str)
    sigmas: Sequence[float] | None = _option(
        None, "the noise of each step itself, falling, one more than steps", list, of=float
    )
    eta: float | None = _option(None, "noise that the sampler adds", float)
    flow_shift: float | None = _option(None, "shift of flow models", float)
    timestep_shift: int | None = _option(None, "shift of the time step (NitroFusion)", int)
    slg_scale: float | None = _option(None, "strength of skip-layer guidance (transformers)", float)
    skip_layers: Sequence[int] | None = _option(None, "layers to skip for it", list, of=int)
    skip_layer_start: float | None = _option(None, "its first step, as a part of all", float)
    skip_layer_end: float | None = _option(None, "its last step, as a part of all", float)
    seed: int | None = _option(None, "start of the random numbers; default or -1: any", int, short="s")
    clip_skip: int | None = _option(None, "last layers of CLIP to leave out", int)
    loras: LoraList = _option((), "LoRAs: (path, weight), or <lora:name:weight> in the prompt")
    vae_tiling: bool | SDTilingParams | None = _option(None, "compute the auto-encoder in tiles: less memory", bool,
                                                      more=SDTilingParams, main="enabled")  # fmt: skip
    cache: str | CacheParams | None = _option(None, "leave out steps that change little, such as easycache", str,
                                             more=CacheParams, main="mode")  # fmt: skip
    preview: str | int | None = _option(None, "how previews are made: proj, tae or vae", str)
    preview_interval: int | None = _option(None, "steps from one preview to the next; default: 1", int)
    output_type: str = _option("pil", "pil: Pillow images; np: arrays (height, width, 3), uint8")


@dataclass(kw_only=True, frozen=True)
class ImageOptions(Options):
    """Everything that the making of pictures can be told."""

    batch_size: int = _option(1, "pictures, with seeds one after the other", int, short="b")
    strength: float | None = _option(None, "how much the picture may change, 0 to 1", float)
    control_image: Any = _option(None, "picture for ControlNet", os.PathLike)
    control_strength: float | None = _option(None, "weight of ControlNet", float)
    hires: float | HiresParams | None = _option(None, "second pass in a size so many times larger", float,
                                               more=HiresParams, main="scale")  # fmt: skip
    pm_params: PhotoMakerParams | None = _option(
        None, "likeness of a person, for models loaded with photo_maker", more=PhotoMakerParams, prefix="pm"
    )
    resize_references: bool | None = _option(None, "fit reference pictures to the size of the result", bool)
    increase_ref_index: bool | None = _option(None, "a position of its own for each reference picture", bool)


@dataclass(kw_only=True, frozen=True)
class VideoOptions(Options):
    """Everything that the making of a video can be told."""

    frames: int | None = _option(None, "frames; the engine takes 4 n + 1, rounded down", int)
    fps: int | None = _option(None, "frames of a second when it is played", int)
    end_image: Any = _option(None, "last frame", os.PathLike)
    control_frames: Any = _option(None, "frames that control it (VACE)", os.PathLike, nargs="+")
    vace_strength: float | None = _option(None, "weight of the control frames", float)
    moe_boundary: float | None = _option(None, "noise at which the two models of Wan 2.2 change", float)
    high_noise_steps: int | None = _option(None, "steps with the model of the noisy part", int)
    high_noise_cfg_scale: float | None = _option(None, "guidance in the noisy part", float)
    high_noise_sampler: int | str | None = _option(None, "sampler of the noisy part", str)
    high_noise_eta: float | None = _option(None, "noise that it adds", float)


def _model_names() -> dict[str, str]:
    names = {}
    for f in dataclasses.fields(SDContextParams):
        names[f.name.removesuffix("_path")] = f.name
        names[f.name] = f.name
    return names | {"type": "wtype"}


MODEL_OPTIONS: dict[str, str] = _model_names()
"""Keyword arguments of `StableDiffusion`, and the fields of `SDContextParams` that they are."""


def options_from(
    kind: type[Kind], given: Mapping[str, Any], *, distilled: bool = False, others: Iterable[str] = ()
) -> Kind:
    """The options out of keyword arguments, under any of their names.

    Parameters
    ----------
    kind : type
        ImageOptions or VideoOptions.
    given : mapping
    distilled : bool
        Whether the model has distilled guidance, which is what ``guidance_scale`` means then.
    others : iterable of str
        What else the caller could have meant by a name that is none.

    Returns
    -------
    ImageOptions or VideoOptions

    Raises
    ------
    TypeError
        There is no such option (the nearest is named), or one was given under two names.
    ValueError
        A value is not what it has to be. The engine's own parameters are checked where they are filled in.
    """
    values: dict[str, Any] = {}
    for name, value in given.items():
        target = ALIASES.get(name, name)
        if name == EITHER_GUIDANCE:
            target = "guidance" if distilled else "cfg_scale"
        if target in values:
            raise TypeError(f"{target} was given twice, once as {name}")
        values[target] = value
    known(values, [f.name for f in dataclasses.fields(kind)], others)
    if "seed" in values:
        values["seed"] = _seed(values["seed"])
    options = kind(**{name: value for name, value in values.items() if value is not None})
    if options.output_type not in ("pil", "np"):
        raise ValueError(f"output_type is {options.output_type!r}, expected 'pil' or 'np'")
    return options


def _seed(value: Any) -> Any:
    """A number, also out of a generator of torch."""
    return value.initial_seed() if callable(getattr(value, "initial_seed", None)) else value


def known(given: Iterable[str], names: Iterable[str], others: Iterable[str] = ()) -> None:
    """Refuse names that are none of `names`; `others` are named as well if they come near.

    Raises
    ------
    TypeError
        Names the nearest.
    """
    names = list(names)
    for name in given:
        if name not in names:
            raise TypeError(f"there is no option {name!r}{_hint(str(name), [*names, *others])}")


def _hint(name: str, names: list[str]) -> str:
    if name in PICTURES:
        return " here; img2img, inpaint and edit take pictures"
    if name in MODEL_OPTIONS or name in ("model", "lora_dir"):
        return "; it belongs to the model and is said when that is loaded: StableDiffusion(model, ...)"
    near = difflib.get_close_matches(name, [*names, *ALIASES, *HOOKS, EITHER_GUIDANCE], 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def model_params(given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `SDContextParams` out of keyword arguments such as ``vae`` or ``vae_path``.

    Raises
    ------
    TypeError
        There is no such option (the nearest is named), or one was given under two names.
    """
    known(given, list(MODEL_OPTIONS))
    values: dict[str, Any] = {}
    for name, value in given.items():
        if MODEL_OPTIONS[name] in values:
            raise TypeError(f"{MODEL_OPTIONS[name]} was given twice, once as {name}")
        values[MODEL_OPTIONS[name]] = value
    return values
