"""The ``parameters`` text in pictures, as AUTOMATIC1111 writes it and the community's tools read it.

It stands in a text chunk of PNG files, and in the Exif user comment of JPEG and WebP files::

    a lighthouse at night <lora:ink:0.8>
    Negative prompt: people
    Steps: 20, Sampler: Euler a, Schedule type: Karras, CFG scale: 7, Seed: 42, Size: 512x512, Model: v1-5, Version: ...
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from PIL import ExifTags, Image, PngImagePlugin

from cyllama.errors import MediaError
from cyllama.sd.samplers import sampler_label, scheduler_label

__all__ = ["infotext", "parse_infotext", "png_info", "read_parameters", "user_comment"]

KEY = "parameters"
NEGATIVE = "Negative prompt: "
PAIR = re.compile(r'\s*([\w][\w \-/]*): ?("(?:\\.|[^"\\])*"|[^,]*)(?:,|$)')
FEWEST_PAIRS = 3  # a last line with less is a part of the prompt
UNICODE = b"UNICODE\0"
# Our names and the community's, in the order in which they are written.
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


def infotext(parameters: Mapping[str, Any]) -> str:
    """The text of a picture's parameters.

    Parameters
    ----------
    parameters : mapping
        Under our names, as in ``.parameters`` of a result; what has no label, or is None, is left out.

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
    pairs = [f"{label}: {_written(values[name])}" for name, label in LABELS.items() if name in values]
    lines = [str(values.get("prompt", ""))]
    if values.get("negative_prompt"):
        lines.append(NEGATIVE + str(values["negative_prompt"]))
    return "\n".join([*lines, ", ".join(pairs)])


def parse_infotext(text: str) -> dict[str, Any]:
    """The parameters that such a text names.

    Parameters
    ----------
    text : str
        Of this or another program.

    Returns
    -------
    dict
        ``prompt``, ``negative_prompt`` and what the last line says, under our names where we have one, as numbers where
        they are numbers; the rest under its own label.
    """
    *lines, last = text.strip().split("\n")
    pairs = PAIR.findall(last)
    if len(pairs) < FEWEST_PAIRS:
        lines, pairs = [*lines, last], []
    start = next((i for i, line in enumerate(lines) if line.startswith(NEGATIVE.strip())), len(lines))
    found: dict[str, Any] = {"prompt": "\n".join(lines[:start]).strip(), "negative_prompt": ""}
    if start < len(lines):
        found["negative_prompt"] = "\n".join(lines[start:]).removeprefix(NEGATIVE.strip()).strip()
    names = {label.casefold(): name for name, label in LABELS.items()}
    for label, raw in pairs:
        name = names.get(label.strip().casefold(), label.strip())
        found[name] = _read(name, raw.strip())
    size = re.fullmatch(r"(\d+)x(\d+)", str(found.get("size", "")))
    if size:
        del found["size"]
        found["width"], found["height"] = int(size[1]), int(size[2])
    return found


def _written(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
    return json.dumps(text, ensure_ascii=False) if any(mark in text for mark in ',:\n"') else text


def _read(name: str, raw: str) -> Any:
    if raw.startswith('"'):
        try:
            raw = str(json.loads(raw))
        except ValueError:
            raw = raw[1:-1]
    try:
        return NUMBERS[name](raw) if name in NUMBERS else raw
    except ValueError:
        return raw


def png_info(text: str) -> PngImagePlugin.PngInfo:
    """The text chunk, for Pillow's ``save(..., pnginfo=)``."""
    info = PngImagePlugin.PngInfo()
    info.add_text(KEY, text)
    return info


def user_comment(text: str) -> Image.Exif:
    """The Exif data, for Pillow's ``save(..., exif=)``."""
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = UNICODE + text.encode("utf-16-be")
    return exif


def read_parameters(path: str | os.PathLike[str]) -> str | None:
    """The text that a picture carries.

    Parameters
    ----------
    path : path
        A PNG, JPEG or WebP file.

    Returns
    -------
    str or None
        None if it carries none.

    Raises
    ------
    FileNotFoundError
    MediaError
        It is no picture.
    """
    with open(path, "rb") as file:
        try:
            with Image.open(file) as image:
                image.load()  # text may stand behind the pixels
                text = image.info.get(KEY)
                comment = image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
        except Exception as error:  # the readers of the formats raise anything for damaged files
            raise MediaError(f"{os.fspath(path)} is no picture that can be read: {error}") from error
    if isinstance(text, str):
        return text
    if isinstance(comment, str):
        comment = comment.encode("latin-1", "replace")
    if isinstance(comment, bytes) and comment.startswith(UNICODE):
        return comment[len(UNICODE) :].decode("utf-16-be", "replace")
    return None
