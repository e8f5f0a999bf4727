"""The parameters of a result, and the text form in which image files carry them.

The text ("infotext") is that of AUTOMATIC1111, which other programs read. PNG files have it in the text chunk
``parameters``, JPEG and WebP files in the Exif user comment::

    a lighthouse at night <lora:ink:0.8>
    Negative prompt: people
    Steps: 20, Sampler: Euler a, Schedule type: Karras, CFG scale: 7, Seed: 42, Size: 512x512, Model: v1-5, Version: ...
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from PIL import ExifTags, Image, PngImagePlugin

from cyllama._params import enum_value
from cyllama.errors import MediaError
from cyllama.media.image_file import check_header, open_image
from cyllama.sd._context import SDContext
from cyllama.sd._enums import (
    CacheMode,
    HiresUpscaler,
    sd_hires_upscaler_name,
    sd_sample_method_name,
    sd_scheduler_name,
)
from cyllama.sd._model_files import ModelFiles
from cyllama.sd.loras import prompt_with_loras
from cyllama.sd.params import HiresParams, ImageGenParams, SampleParams, VideoGenParams
from cyllama.sd.samplers import sampler_label, scheduler_label

__all__ = [
    "Parameters",
    "infotext",
    "infotext_labels",
    "parameters_of",
    "parse_infotext",
    "png_info",
    "read_parameters",
    "used_parameters",
    "user_comment",
]

Parameters = dict[str, Any]
"""Values by the name of the option, as in ``.parameters`` of a result."""

KEY = "parameters"
NEGATIVE = "Negative prompt: "
LABEL = re.compile(r"[\w \-/]*")
QUOTED = re.compile(r'"(?:\\.|[^"\\]++)*+"(?=,|\Z)')
MIN_PAIRS = 3  # a last line with fewer belongs to the prompt
UNICODE = b"UNICODE\0"
# Option names and their labels, in the order of the text.
LABELS = {
    "steps": "Steps",
    "sampler": "Sampler",
    "scheduler": "Schedule type",
    "cfg_scale": "CFG scale",
    "guidance": "Distilled CFG Scale",
    "image_cfg_scale": "Image CFG scale",
    "seed": "Seed",
    "size": "Size",
    "model": "Model",
    "vae": "VAE",
    "strength": "Denoising strength",
    "clip_skip": "Clip skip",
    "eta": "Eta",
    "flow_shift": "Shift",
    "timestep_shift": "Timestep shift",
    "sigmas": "Sigmas",
    "slg_scale": "SLG scale",
    "skip_layers": "Skip layers",
    "skip_layer_start": "Skip layer start",
    "skip_layer_end": "Skip layer end",
    "control_strength": "ControlNet strength",
    "hires": "Hires upscale",
    "hires_size": "Hires resize",
    "hires_upscaler": "Hires upscaler",
    "hires_steps": "Hires steps",
    "hires_strength": "Hires denoising strength",
    "vae_tiling": "VAE tiling",
    "cache": "Cache",
    "frames": "Frames",
    "version": "Version",
}
NUMBERS: dict[str, Callable[[str], Any]] = {
    "steps": int,
    "cfg_scale": float,
    "guidance": float,
    "image_cfg_scale": float,
    "seed": int,
    "strength": float,
    "clip_skip": int,
    "eta": float,
    "flow_shift": float,
    "timestep_shift": int,
    "sigmas": json.loads,
    "slg_scale": float,
    "skip_layers": json.loads,
    "skip_layer_start": float,
    "skip_layer_end": float,
    "control_strength": float,
    "hires": float,
    "hires_steps": int,
    "hires_strength": float,
    "frames": int,
}


def used_parameters(
    request: ImageGenParams | VideoGenParams, context: SDContext, files: ModelFiles, *, has_image: bool
) -> Parameters:
    """Return the parameters of a result, with the defaults filled in.

    Parameters
    ----------
    request : ImageGenParams or VideoGenParams
        The parameters that the engine received.
    context : SDContext
        The model, which has a default sampler and scheduler.
    files : ModelFiles
        The model's files.
    has_image : bool
        Whether the request has an initial image.

    Returns
    -------
    dict
        Values that JSON can represent; None for an option that was not used.
    """
    sampling = request.sample_params
    assert sampling is not None
    used = {
        "prompt": prompt_with_loras(request.prompt or "", request.loras or ()),
        "negative_prompt": request.negative_prompt,
        **_sampling_parameters(sampling, context),
        "seed": request.seed,
        "width": request.width,
        "height": request.height,
        "model": files.name,
        "vae": files.vae_name,
        "strength": request.strength if has_image else None,
        "clip_skip": request.clip_skip,
        "vae_tiling": True if request.vae_tiling is not None and request.vae_tiling.enabled else None,
        "cache": _cache_name(request),
        **(_image_parameters(request) if isinstance(request, ImageGenParams) else _video_parameters(request)),
        "version": f"cyllama {importlib.metadata.version('cyllama')}",
    }
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in used.items()}


def _sampling_parameters(sampling: SampleParams, context: SDContext) -> Parameters:
    guidance = sampling.guidance
    assert guidance is not None
    sampler = context.default_sample_method if sampling.sampler is None else sampling.sampler
    scheduler = context.default_scheduler(sampler) if sampling.scheduler is None else sampling.scheduler
    return {
        "steps": sampling.steps,
        "sampler": sd_sample_method_name(sampler),
        "scheduler": None if sampling.sigmas is not None else sd_scheduler_name(scheduler),
        "sigmas": None if sampling.sigmas is None else list(map(float, sampling.sigmas)),
        "cfg_scale": guidance.cfg_scale,
        "guidance": guidance.guidance,
        "image_cfg_scale": guidance.image_cfg_scale,
        "eta": sampling.eta,
        "flow_shift": sampling.flow_shift,
        "timestep_shift": sampling.timestep_shift,
        "slg_scale": None if guidance.slg is None else guidance.slg.slg_scale,
        "skip_layers": None if guidance.slg is None else list(map(int, guidance.slg.skip_layers or ())),
        "skip_layer_start": None if guidance.slg is None else guidance.slg.skip_layer_start,
        "skip_layer_end": None if guidance.slg is None else guidance.slg.skip_layer_end,
    }


def _cache_name(request: ImageGenParams | VideoGenParams) -> str | None:
    mode = None if request.cache is None else request.cache.mode
    if mode is None:
        return None
    name = CacheMode(enum_value(CacheMode, mode, "cache")).name.lower()
    return None if name == "disabled" else name


def _image_parameters(request: ImageGenParams) -> Parameters:
    hires = request.hires if request.hires is not None and request.hires.enabled else None
    return {"control_strength": request.control_strength, **({} if hires is None else _hires_parameters(hires))}


def _hires_parameters(hires: HiresParams) -> Parameters:
    size = hires.target_width or hires.target_height
    upscaler = None if hires.upscaler is None else enum_value(HiresUpscaler, hires.upscaler, "upscaler")
    return {
        "hires": None if size else hires.scale,
        "hires_size": f"{hires.target_width or size}x{hires.target_height or size}" if size else None,
        "hires_upscaler": None if upscaler is None else sd_hires_upscaler_name(upscaler),
        "hires_steps": hires.steps or None,
        "hires_strength": hires.denoising_strength,
    }


def _video_parameters(request: VideoGenParams) -> Parameters:
    high_noise = request.high_noise_sample_params
    return {
        "vace_strength": None if request.control_frames is None else request.vace_strength,
        "moe_boundary": request.moe_boundary,
        "high_noise_steps": (None if high_noise is None or (high_noise.steps or 0) < 1 else high_noise.steps),
    }


def infotext(parameters: Mapping[str, Any]) -> str:
    """Return the text form of parameters.

    Parameters
    ----------
    parameters : mapping
        As in ``.parameters`` of a result. Names without a label and values of None are left out.

    Returns
    -------
    str
    """
    values = {name: value for name, value in parameters.items() if value is not None}
    if "width" in values and "height" in values:
        values["size"] = f"{values['width']}x{values['height']}"
    for name, label_of in (("sampler", sampler_label), ("scheduler", scheduler_label)):
        if name in values:
            values[name] = label_of(values[name])
    pairs = [f"{label}: {_format_value(values[name])}" for name, label in LABELS.items() if name in values]
    lines = [str(values.get("prompt", ""))]
    if values.get("negative_prompt"):
        lines.append(NEGATIVE + str(values["negative_prompt"]))
    return "\n".join([*lines, ", ".join(pairs)])


def parse_infotext(text: str) -> dict[str, Any]:
    """Parse the text form of parameters.

    Parameters
    ----------
    text : str
        Written by cyllama or by another program.

    Returns
    -------
    dict
        ``prompt``, ``negative_prompt`` and the values of the last line. Known labels become option names, and their
        values numbers; unknown labels stay as they are, with text values.
    """
    *lines, last = text.strip().split("\n")
    pairs = list(_pairs(last))
    if len(pairs) < MIN_PAIRS:
        lines, pairs = [*lines, last], []
    start = next((i for i, line in enumerate(lines) if line.startswith(NEGATIVE.strip())), len(lines))
    found: dict[str, Any] = {"prompt": "\n".join(lines[:start]).strip(), "negative_prompt": ""}
    if start < len(lines):
        found["negative_prompt"] = "\n".join(lines[start:]).removeprefix(NEGATIVE.strip()).strip()
    names = {label.casefold(): name for name, label in LABELS.items()}
    for label, raw in pairs:
        name = names.get(label.strip().casefold(), label.strip())
        found[name] = _parse_value(name, raw.strip())
    size = re.fullmatch(r"(\d{1,9})x(\d{1,9})", str(found.get("size", "")))
    if size:
        del found["size"]
        found["width"], found["height"] = int(size[1]), int(size[2])
    return found


def infotext_labels(text: str) -> dict[str, str]:
    """Parse the text form of parameters; names are its labels (``Prompt``, ``Steps``, ``Size-1``), values texts."""
    if not text.strip():
        return {}
    labels = {"prompt": "Prompt", "negative_prompt": NEGATIVE.strip(": "), "width": "Size-1", "height": "Size-2"}
    return {
        labels.get(name, LABELS.get(name, name)): value if isinstance(value, str) else _format_value(value)
        for name, value in parse_infotext(text).items()
    }


def _pairs(line: str) -> Iterator[tuple[str, str]]:
    """Yield labels and values of ``label: value, label: "value", ...``; each character is read a few times at most."""
    position = 0
    while (colon := line.find(":", position)) >= 0:
        before = LABEL.match(line[position:colon][::-1])  # backwards from the colon
        label = before[0][::-1].lstrip(" -/") if before is not None else ""
        if not label:
            position = colon + 1
            continue
        start = colon + 1 + line.startswith(" ", colon + 1)
        quoted, comma = QUOTED.match(line, start), line.find(",", start)
        end = quoted.end() if quoted is not None else comma if comma >= 0 else len(line)
        yield label, line[start:end]
        position = end + 1


def _format_value(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
    return json.dumps(text, ensure_ascii=False) if any(mark in text for mark in ',:\n"') else text


def _parse_value(name: str, raw: str) -> Any:
    if raw.startswith('"'):
        try:
            raw = str(json.loads(raw))
        except (ValueError, RecursionError):
            raw = raw[1:-1]
    try:
        return NUMBERS[name](raw) if name in NUMBERS else raw
    except (ValueError, RecursionError):
        return raw


def png_info(text: str) -> PngImagePlugin.PngInfo:
    """Return the text chunk for Pillow's ``save(..., pnginfo=)``."""
    info = PngImagePlugin.PngInfo()
    info.add_text(KEY, text)
    return info


def user_comment(text: str) -> Image.Exif:
    """Return the Exif data for Pillow's ``save(..., exif=)``."""
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = UNICODE + text.encode("utf-16-be")
    return exif


def read_parameters(path: str | os.PathLike[str]) -> str | None:
    """Return the parameters in an image file, as text.

    Parameters
    ----------
    path : path
        A PNG, JPEG or WebP file.

    Returns
    -------
    str or None
        None for a file without parameters.

    Raises
    ------
    FileNotFoundError
    MediaError
        The file is not an image, or is damaged.
    """
    with open(path, "rb") as file:
        try:
            check_header(file, os.fspath(path))
            with open_image(file) as image:
                image.load()  # a text chunk may follow the pixels
                return parameters_of(image)
        except Exception as error:  # Pillow's readers raise many types for damaged files
            raise MediaError(f"{os.fspath(path)} is not a readable image: {error}") from error


def parameters_of(image: Image.Image) -> str | None:
    """Return the parameters in an image that was read from a file, as text; None if there are none."""
    text = image.info.get(KEY)
    if isinstance(text, str):
        return text
    comment = image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    if isinstance(comment, str):
        comment = comment.encode("latin-1", "replace")
    if isinstance(comment, bytes) and comment.startswith(UNICODE):
        return comment[len(UNICODE) :].decode("utf-16-be", "replace")
    return None
