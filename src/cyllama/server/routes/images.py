"""Routes of diffusion models: OpenAI's image generations and edits, with `cyllama.sd`."""

from __future__ import annotations

import io
import json
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from PIL import Image
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.routing import Route

from cyllama.media.image import open_image
from cyllama.server.config import Limits, ModelEntry
from cyllama.server.http.current_job import Job
from cyllama.server.http.errors import http_error
from cyllama.server.http.response_stream import JSON, ResponseStream
from cyllama.server.http.task import TaskResponse
from cyllama.server.image_jobs import (
    OPTIONS,
    OUTPUT_FORMATS,
    ImageFormat,
    ImageRequest,
    Pixels,
    check_image,
    encode_image,
    generate,
    parse_options,
    read_image,
)
from cyllama.server.state import ServerState

__all__ = ["image_routes"]

SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")
# Fields that only OpenAI's models support, with the values that have no effect.
NEUTRAL = {
    "background": ("auto", "opaque"),
    "moderation": ("auto", "low"),
    "quality": ("auto", "standard"),
    "input_fidelity": ("low",),
    "response_format": ("b64_json",),
}
OTHER_FIELDS = (
    "prompt",
    "model",
    "n",
    "size",
    "output_format",
    "output_compression",
    "stream",
    "partial_images",
    "user",
)
INTEGERS = ("n", "output_compression", "partial_images")
IMAGE_FIELDS = ("image", "image[]")
FILE_FIELDS = (*IMAGE_FIELDS, "mask")
MAX_PERCENT = 100
MAX_PARTIAL_IMAGES = 100
OPAQUE = 255


@dataclass(frozen=True)
class _Output:
    """The form of the response.

    Attributes
    ----------
    format : str
    quality : int or None
        0 to 100.
    stream : bool
    partial_images : int
        Number of previews in a stream.
    event : str
        Prefix of the names of events.
    """

    format: ImageFormat
    quality: int | None
    stream: bool
    partial_images: int
    event: Literal["image_generation", "image_edit"]


def image_routes(state: ServerState) -> list[Route]:
    """Return the routes of diffusion models."""
    return [
        Route("/v1/images/generations", partial(_post_generation, state), methods=["POST"]),
        Route("/v1/images/edits", partial(_post_edit, state), methods=["POST"]),
    ]


async def _post_generation(state: ServerState, http_request: Request) -> TaskResponse:
    state.queues["sd"].check()
    async with state.request_body() as body:
        fields = await body.json(http_request)
        entry = state.find_model(fields.get("model"), "images")
        request = ImageRequest(_parse_prompt(fields), _parse_options(fields, state.config.limits))
        output = _parse_output(fields, "image_generation")
        return state.respond("sd", partial(_generate, state, entry, request, output), body.keep())


async def _post_edit(state: ServerState, http_request: Request) -> TaskResponse:
    state.queues["sd"].check()
    async with state.request_body() as body:
        async with body.form(http_request) as form:
            fields = _parse_fields(form)
            entry = state.find_model(fields.get("model"), "images")
            images = [await _read_file(file, "image") for name in IMAGE_FIELDS for file in form.getlist(name)]
            mask = await _read_file(form["mask"], "mask") if "mask" in form else None
        if not images:
            raise http_error(400, "the form has no field named image, expected an image file", param="image")
        if mask is not None and len(images) > 1:
            raise http_error(400, f"mask is given with {len(images)} images, expected one image", param="mask")
        request = ImageRequest(_parse_prompt(fields), _parse_options(fields, state.config.limits))
        output = _parse_output(fields, "image_edit")
        return state.respond("sd", partial(_edit, state, entry, request, images, mask, output), body.keep())


def _parse_fields(form: FormData) -> dict[str, Any]:
    """Return the fields of a form with the types that they have in JSON, without the files."""
    found: dict[str, Any] = {}
    for name, value in form.multi_items():
        if name in FILE_FIELDS:
            continue
        if isinstance(value, UploadFile) or name in found:
            raise http_error(400, f"{name} is a file or is given twice, expected one text", param=name)
        kind = int if name in INTEGERS else OPTIONS.get(name, str)
        try:
            found[name] = value == "true" if name == "stream" else kind(value)
        except ValueError:
            raise http_error(400, f"{name} is {value!r:.100}, expected {kind.__name__}", param=name) from None
    return found


async def _read_file(value: UploadFile | str, name: str) -> bytes:
    if not isinstance(value, UploadFile):
        raise http_error(400, f"{name} is a text, expected a file", param=name)
    return await value.read()


def _parse_prompt(fields: Mapping[str, Any]) -> str:
    prompt = fields.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise http_error(400, f"prompt is {prompt!r:.100}, expected a string that is not empty", param="prompt")
    return prompt


def _parse_options(fields: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    given = {name: value for name, value in fields.items() if name in OPTIONS}
    for name, value in fields.items():
        if name in NEUTRAL and value is not None and value not in NEUTRAL[name]:
            message = f"{name} is {value!r:.100}, expected {' or '.join(NEUTRAL[name])}"
            raise http_error(400, message, param=name)
        if name not in OPTIONS and name not in NEUTRAL and name not in OTHER_FIELDS:
            known = ", ".join([*OTHER_FIELDS, *OPTIONS])
            raise http_error(400, f"unknown field {name!r:.100}; expected one of {known}", param=name)
    if fields.get("n") is not None:
        given["batch_size"] = fields["n"]
    size = fields.get("size")
    if size not in (None, "auto"):
        match = SIZE.fullmatch(size) if isinstance(size, str) else None
        if match is None:
            raise http_error(400, f"size is {size!r:.100}, expected WIDTHxHEIGHT, such as '512x512'", param="size")
        given["width"], given["height"] = int(match[1]), int(match[2])
    return parse_options(given, limits)


def _parse_output(fields: Mapping[str, Any], event: Literal["image_generation", "image_edit"]) -> _Output:
    format = fields.get("output_format") or "png"
    if format not in OUTPUT_FORMATS:
        message = f"output_format is {format!r:.100}, expected one of {', '.join(OUTPUT_FORMATS)}"
        raise http_error(400, message, param="output_format")
    quality, partial_images = fields.get("output_compression"), fields.get("partial_images") or 0
    for name, value, most in (
        ("output_compression", quality or 0, MAX_PERCENT),
        ("partial_images", partial_images, MAX_PARTIAL_IMAGES),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise http_error(400, f"{name} is {value!r:.100}, expected 0 to {most}", param=name)
    stream = fields.get("stream") or False
    if not isinstance(stream, bool):
        raise http_error(400, f"stream is {stream!r:.100}, expected true or false", param="stream")
    if partial_images and not stream:
        raise http_error(400, f"partial_images is {partial_images}, expected 0 without stream", param="partial_images")
    return _Output(format, quality, stream, partial_images, event)


def _edit(
    state: ServerState,
    entry: ModelEntry,
    request: ImageRequest,
    images: list[bytes],
    mask: bytes | None,
    output: _Output,
    stream: ResponseStream,
    cancel: threading.Event,
) -> None:
    """Decode the images and edit them, in a thread."""
    limits = state.config.limits
    pixels = [read_image(image, limits, "image") for image in images]
    if len(pixels) > 1:
        request = ImageRequest(request.prompt, request.options, references=tuple(pixels))
    else:
        mask_pixels = None if mask is None else _read_mask(mask, limits)
        request = ImageRequest(request.prompt, request.options, pixels[0], mask_pixels)
    _generate(state, entry, request, output, stream, cancel)


def _read_mask(mask: bytes, limits: Limits) -> Pixels:
    """Convert OpenAI's mask, which is transparent where the image is edited, to the engine's, which is white there."""
    check_image(mask, limits.pixels, "mask")
    try:
        with open_image(io.BytesIO(mask)) as image:
            if not image.has_transparency_data:
                raise http_error(
                    400, "mask has no transparency, expected transparent pixels where to edit", param="mask"
                )
            alpha = np.asarray(image.convert("RGBA"))[..., 3]
    except OSError:
        raise http_error(400, "mask is not a valid image", param="mask") from None
    return OPAQUE - alpha


def _generate(
    state: ServerState,
    entry: ModelEntry,
    request: ImageRequest,
    output: _Output,
    stream: ResponseStream,
    cancel: threading.Event,
) -> None:
    """Generate the images, in a thread; send JSON, or events with previews."""
    job = _StreamedJob(cancel, stream, output) if output.stream else Job(cancel)
    result = generate(state, entry, request, job)
    size = "{}x{}".format(*result[0].size)
    files = [encode_image(image, output.format, output.quality) for image in result]
    if isinstance(job, _StreamedJob):
        job.start()
        for file in files:
            job.send("completed", {"b64_json": file, "size": size, "usage": _usage()})
        return
    response = {
        "created": int(time.time()),
        "data": [{"b64_json": file} for file in files],
        "output_format": output.format,
        "size": size,
        "seeds": result.seeds,
        "parameters": {k: v for k, v in result.parameters.items() if k != "version"},
    }
    stream.send(200, JSON, json.dumps(response).encode())


def _usage() -> dict[str, Any]:
    """Return a usage without tokens, which OpenAI's types require."""
    none = {"image_tokens": 0, "text_tokens": 0}
    return {"input_tokens": 0, "input_tokens_details": none, "output_tokens": 0, "total_tokens": 0}


class _StreamedJob(Job):
    """A job that sends previews as events."""

    def __init__(self, cancel: threading.Event, stream: ResponseStream, output: _Output) -> None:
        super().__init__(cancel)
        self._stream, self._output = stream, output
        self._started = False
        self._sent = 0

    def start(self) -> None:
        """Start the response; a second call does nothing."""
        if not self._started:
            self._started = True
            self._stream.start_events()

    def on_preview(self, image: Image.Image, step: int) -> None:
        """Send the preview if the next partial image is due."""
        super().on_preview(image, step)
        due = self._output.partial_images * step // max(1, self.steps)
        if due > self._sent and step < self.steps:
            self.start()
            size = "{}x{}".format(*image.size)
            content = {"b64_json": encode_image(image, self._output.format), "size": size}
            self.send("partial_image", content | {"partial_image_index": self._sent})
            self._sent += 1

    def send(self, kind: str, content: Mapping[str, Any]) -> None:
        """Send an event."""
        name = f"{self._output.event}.{kind}"
        common = {"type": name, "created_at": int(time.time()), "output_format": self._output.format}
        data = {**common, "background": "opaque", "quality": "auto", **content}
        self._stream.write(f"event: {name}\ndata: {json.dumps(data)}\n\n".encode())
