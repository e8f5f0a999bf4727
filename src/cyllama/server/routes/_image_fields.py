"""Fields of OpenAI's image requests: the options of the engine among them, and the form of the response."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from starlette.datastructures import FormData, UploadFile

from cyllama.server.http.errors import http_error
from cyllama.server.image_jobs import OPTIONS, OUTPUT_FORMATS, ImageFormat, parse_options
from cyllama.server.limits import Limits

__all__ = ["FILE_FIELDS", "IMAGE_FIELDS", "ImageEvent", "Output", "parse_fields", "parse_form", "parse_output"]

ImageEvent = Literal["image_generation", "image_edit"]

SIZE = re.compile(r"(\d{1,5})[xX\u00d7](\d{1,5})")
# Fields that only OpenAI's models support, with the values that ask for nothing.
NEUTRAL = {
    "background": ("auto", "opaque"),
    "moderation": ("auto", "low"),
    "quality": ("auto", "standard", "medium"),
    "style": (),
    "input_fidelity": ("low",),
}
# Values that are accepted without an effect, which a warning in the response says.
WARNINGS = {
    "quality": (("low", "high", "hd"), "steps sets the quality"),
    "style": (("vivid", "natural"), "prompt describes the style"),
}
# Values of OpenAI that are refused, with the reason.
REFUSED = {
    ("background", "transparent"): "the models generate opaque images",
    ("input_fidelity", "high"): "strength sets how much of an image may change",
}
OTHER_FIELDS = (
    "prompt",
    "model",
    "n",
    "size",
    "response_format",
    "output_format",
    "output_compression",
    "stream",
    "partial_images",
    "user",
    "loras",
    "control_image",
    "control_strength",
)
RESPONSE_FORMATS = ("b64_json", "url")
INTEGERS = ("n", "output_compression", "partial_images")
IMAGE_FIELDS = ("image", "image[]")
CONTROL = "control_image"
FILE_FIELDS = (*IMAGE_FIELDS, "mask", CONTROL)
NUMBERS = {"control_strength": float}
LORA_NAME = re.compile(r"[^<>:|\x00-\x1f]{1,200}")
LORA_WEIGHT = 100.0  # the largest
MAX_PERCENT = 100
MAX_PARTIAL_IMAGES = 100


@dataclass(frozen=True)
class Output:
    """The form of the response.

    Attributes
    ----------
    format : str
    quality : int or None
        0 to 100.
    stream : bool
    partial_images : int
        Number of previews of each image in a stream.
    event : str
        Prefix of the names of events.
    as_url : bool
        Send a link instead of the image.
    warnings : list of str
        The fields without an effect.
    """

    format: ImageFormat
    quality: int | None
    stream: bool
    partial_images: int
    event: ImageEvent
    as_url: bool
    warnings: list[str] = field(default_factory=list)


def parse_form(form: FormData) -> dict[str, Any]:
    """Return the fields of a form with the types that they have in JSON, without the files.

    Raises
    ------
    HTTPException
        400.
    """
    found: dict[str, Any] = {}
    for name, value in form.multi_items():
        if name in FILE_FIELDS:
            continue
        if isinstance(value, UploadFile) or name in found:
            raise http_error(400, f"{name} is a file or is given twice, expected one text", param=name)
        kind = int if name in INTEGERS else NUMBERS.get(name) or OPTIONS.get(name, str)
        if name == "stream" and value not in ("true", "false"):
            raise http_error(400, f"stream is {value!r:.100}, expected true or false", param=name)
        try:
            found[name] = value == "true" if name == "stream" else kind(value)
        except ValueError:
            raise http_error(400, f"{name} is {value!r:.100}, expected {kind.__name__}", param=name) from None
    return found


def parse_fields(fields: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    """Check the names and values of all fields, and return the engine's options among them.

    Raises
    ------
    HTTPException
        400.
    """
    given = {name: value for name, value in fields.items() if name in OPTIONS}
    for name, value in fields.items():
        if name in NEUTRAL:
            if value is not None:
                _check_value(name, value)
        elif name not in OPTIONS and name not in OTHER_FIELDS:
            known = ", ".join([*OTHER_FIELDS, *NEUTRAL, *OPTIONS])
            raise http_error(400, f"unknown field {name!r:.100}; expected one of {known}", param=name)
    if not isinstance(fields.get("user") or "", str):
        raise http_error(400, f"user is {fields['user']!r:.100}, expected a string", param="user")
    if fields.get("n") is not None:
        given["batch_size"] = fields["n"]
    size = fields.get("size")
    if size is not None and (not isinstance(size, str) or size.casefold() != "auto"):
        match = SIZE.fullmatch(size) if isinstance(size, str) else None
        if match is None:
            raise http_error(400, f"size is {size!r:.100}, expected WIDTHxHEIGHT, such as '512x512'", param="size")
        given["width"], given["height"] = int(match[1]), int(match[2])
    return parse_options(given, limits) | _parse_strength(fields)


def _parse_strength(fields: Mapping[str, Any]) -> dict[str, float]:
    """Return the option ``control_strength``, if it is given."""
    value = fields.get("control_strength")
    if value is None:
        return {}
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise http_error(400, f"control_strength is {value!r:.100}, expected 0 to 1", param="control_strength")
    return {"control_strength": value}


def parse_loras(value: object) -> list[str]:
    """Return the tags of a prompt for the field ``loras``: a list of objects with ``name`` and ``weight``.

    Names are those of files in the folder of the model's entry, as in prompts.

    Raises
    ------
    HTTPException
        400.
    """
    if value is None:
        return []
    if not isinstance(value, list):
        raise http_error(
            400, f"loras is {value!r:.100}, expected a list of objects with name and weight", param="loras"
        )
    tags = []
    for i, item in enumerate(value):
        name, weight = (item.get("name"), item.get("weight", 1.0)) if isinstance(item, dict) else (None, 1.0)
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool) and abs(weight) <= LORA_WEIGHT
        if not isinstance(item, dict) or set(item) - {"name", "weight"} or not is_number:
            expected = f"an object with a name and a weight of -{LORA_WEIGHT:g} to {LORA_WEIGHT:g}"
            raise http_error(400, f"loras[{i}] is {item!r:.100}, expected {expected}", param=f"loras[{i}]")
        if not isinstance(name, str) or LORA_NAME.fullmatch(name) is None:
            message = f"loras[{i}].name is {name!r:.100}, expected the name of a file in lora_dir"
            raise http_error(400, message, param=f"loras[{i}].name")
        tags.append(f"<lora:{name}:{weight:g}>")
    return tags


def _check_value(name: str, value: object) -> None:
    accepted = (*NEUTRAL[name], *WARNINGS.get(name, ((), ""))[0])
    if value in accepted:
        return
    reason = REFUSED.get((name, value)) if isinstance(value, str) else None
    ending = f"expected {' or '.join(accepted)}" if reason is None else f"which is not supported: {reason}"
    raise http_error(400, f"{name} is {value!r:.100}, {ending}", param=name)


def parse_output(fields: Mapping[str, Any], event: ImageEvent, *, links: bool) -> Output:
    """Return the form of the response.

    Parameters
    ----------
    fields : mapping
        As checked by `parse_fields`.
    event : str
    links : bool
        Whether the server sends links.

    Raises
    ------
    HTTPException
        400.
    """
    format = fields.get("output_format") or "png"
    if not isinstance(format, str) or format not in OUTPUT_FORMATS:
        message = f"output_format is {format!r:.100}, expected one of {', '.join(OUTPUT_FORMATS)}"
        raise http_error(400, message, param="output_format")
    quality, partial_images = fields.get("output_compression"), fields.get("partial_images") or 0
    for name, value, most in (
        ("output_compression", quality or 0, MAX_PERCENT),
        ("partial_images", partial_images, MAX_PARTIAL_IMAGES),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise http_error(400, f"{name} is {value!r:.100}, expected 0 to {most}", param=name)
    if quality not in (None, MAX_PERCENT) and format == "png":
        message = f"output_compression is {quality}, expected {MAX_PERCENT} for png, which is lossless"
        raise http_error(400, message, param="output_compression")
    stream = fields.get("stream") or False
    if not isinstance(stream, bool):
        raise http_error(400, f"stream is {stream!r:.100}, expected true or false", param="stream")
    if partial_images and not stream:
        raise http_error(400, f"partial_images is {partial_images}, expected 0 without stream", param="partial_images")
    as_url = _is_url(fields, stream, links)
    warnings = [
        f"{name} is {fields[name]!r}, which has no effect: {reason}"
        for name, (values, reason) in WARNINGS.items()
        if fields.get(name) in values
    ]
    return Output(format, quality, stream, partial_images, event, as_url, warnings)


def _is_url(fields: Mapping[str, Any], stream: bool, links: bool) -> bool:
    value = fields.get("response_format") or "b64_json"
    if value not in RESPONSE_FORMATS:
        message = f"response_format is {value!r:.100}, expected {' or '.join(RESPONSE_FORMATS)}"
        raise http_error(400, message, param="response_format")
    if value == "url" and (stream or not links):
        reason = "events contain the images" if stream else "this server has no image_link_seconds"
        message = f"response_format is 'url', which is not supported: {reason}; expected b64_json"
        raise http_error(400, message, param="response_format")
    return bool(value == "url")
