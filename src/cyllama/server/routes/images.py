"""Routes of diffusion models: OpenAI's image generations, edits and variations, with `cyllama.sd`."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cyllama.server.config import ModelEntry
from cyllama.server.http.current_job import Job
from cyllama.server.http.errors import http_error
from cyllama.server.http.response_stream import JSON, ResponseStream
from cyllama.server.http.task import TaskResponse
from cyllama.server.image_jobs import ImageRequest, Pixels, encode_image, generate
from cyllama.server.limits import Limits
from cyllama.server.received_images import decode_text, read_alpha, read_image, read_layers
from cyllama.server.routes._image_events import StreamedJob
from cyllama.server.routes._image_fields import (
    CONTROL,
    IMAGE_FIELDS,
    Output,
    parse_fields,
    parse_form,
    parse_loras,
    parse_output,
)
from cyllama.server.state import ServerState

__all__ = ["image_routes"]

LINKS = "/v1/images/files"
OPAQUE = 255


def image_routes(state: ServerState) -> list[Route]:
    """Return the routes of diffusion models."""
    return [
        Route("/v1/images/generations", partial(_post_generation, state), methods=["POST"]),
        Route("/v1/images/edits", partial(_post_edit, state), methods=["POST"]),
        Route("/v1/images/variations", partial(_post_variation, state), methods=["POST"]),
        Route(LINKS + "/{name}", partial(_get_file, state), methods=["GET"]),
    ]


@dataclass(frozen=True)
class _Task:
    """A request whose fields are checked and whose files are not decoded.

    Attributes
    ----------
    entry : ModelEntry
    request : ImageRequest
        Without images.
    output : Output
    base_url : str
        Of the server, for links.
    images : sequence of bytes
    mask : bytes or None
    control : bytes or str or None
        A file, or its base64.
    holes : bool
        Whether transparent pixels of the image are the mask.
    """

    entry: ModelEntry
    request: ImageRequest
    output: Output
    base_url: str
    images: Sequence[bytes] = ()
    mask: bytes | None = None
    control: bytes | str | None = None
    holes: bool = False


async def _post_generation(state: ServerState, http_request: Request) -> TaskResponse:
    state.queues["sd"].check()
    async with state.request_body() as body:
        fields = await body.json(http_request)
        entry = state.find_model(fields.get("model"), "images")
        request = ImageRequest(_parse_prompt(fields), parse_fields(fields, state.config.limits))
        output = parse_output(fields, "image_generation", links=state.image_links.seconds > 0)
        task = _Task(entry, request, output, _base_url(http_request), control=fields.get(CONTROL))
        return state.respond("sd", partial(_run, state, task), body.keep())


async def _post_edit(state: ServerState, http_request: Request) -> TaskResponse:
    return await _post_form(state, http_request)


async def _post_variation(state: ServerState, http_request: Request) -> TaskResponse:
    return await _post_form(state, http_request, is_variation=True)


async def _post_form(state: ServerState, http_request: Request, *, is_variation: bool = False) -> TaskResponse:
    state.queues["sd"].check()
    async with state.request_body() as body:
        async with body.form(http_request) as form:
            fields = parse_form(form)
            entry = state.find_model(fields.get("model"), "images")
            images = [await _read_file(file, "image") for name in IMAGE_FIELDS for file in form.getlist(name)]
            mask, control = [await _read_file(form[name], name) if name in form else None for name in ("mask", CONTROL)]
        if not images:
            raise http_error(400, "the form has no field named image, expected an image file", param="image")
        if mask is not None and len(images) > 1:
            raise http_error(400, f"mask is given with {len(images)} images, expected one image", param="mask")
        if is_variation:
            _check_variation(fields, len(images), mask)
        prompt = _parse_prompt(fields, is_required=not is_variation)
        request = ImageRequest(prompt, parse_fields(fields, state.config.limits))
        output = parse_output(fields, "image_edit", links=state.image_links.seconds > 0)
        task = _Task(entry, request, output, _base_url(http_request), images, mask, control, not is_variation)
        return state.respond("sd", partial(_run, state, task), body.keep())


def _check_variation(fields: Mapping[str, Any], count: int, mask: bytes | None) -> None:
    if count > 1 or mask is not None:
        message = f"a variation is given {count} images" + (" and a mask" if mask is not None else "")
        raise http_error(400, f"{message}, expected one image; see /v1/images/edits", param="image")
    if fields.get("stream"):
        raise http_error(400, "stream is true, expected false for a variation", param="stream")


async def _read_file(value: UploadFile | str, name: str) -> bytes:
    if not isinstance(value, UploadFile):
        raise http_error(400, f"{name} is a text, expected a file", param=name)
    return await value.read()


def _parse_prompt(fields: Mapping[str, Any], *, is_required: bool = True) -> str:
    """Return the prompt, with the LoRAs of the field ``loras``."""
    prompt = fields.get("prompt")
    if prompt is None and not is_required:
        prompt = ""
    if not isinstance(prompt, str) or (is_required and not prompt.strip()):
        raise http_error(400, f"prompt is {prompt!r:.100}, expected a string that is not empty", param="prompt")
    return " ".join([prompt, *parse_loras(fields.get("loras"))])


def _base_url(http_request: Request) -> str:
    return str(http_request.base_url).rstrip("/")


def _run(state: ServerState, task: _Task, stream: ResponseStream, cancel: threading.Event) -> None:
    """Decode the images and generate, in a thread; send JSON, or events with previews."""
    request = _decoded(task, state.config.limits)
    output = task.output
    job = StreamedJob(cancel, stream, request, output) if output.stream else Job(cancel)
    result = generate(state, task.entry, request, job)
    size = "{}x{}".format(*result[0].size)
    files = [encode_image(image, output.format, output.quality) for image in result]
    if isinstance(job, StreamedJob):
        job.start()
        for i, file in enumerate(files):
            job.send("completed", {"b64_json": file, "size": size, "image_index": i, "usage": _usage()})
        return
    response = {
        "created": int(time.time()),
        "data": [_link(state, file, task) if output.as_url else {"b64_json": file} for file in files],
        "output_format": output.format,
        "size": size,
        "seeds": result.seeds,
        "parameters": {k: v for k, v in result.parameters.items() if k != "version"},
    }
    if output.warnings:
        response["warnings"] = output.warnings
    stream.send(200, JSON, json.dumps(response).encode())


def _decoded(task: _Task, limits: Limits) -> ImageRequest:
    """Return the request with its images."""
    request = task.request
    if task.control is not None:
        data = task.control if isinstance(task.control, bytes) else decode_text(task.control, CONTROL)
        request = replace(request, options={**request.options, CONTROL: read_image(data, limits, CONTROL)})
    if not task.images:
        return request
    if len(task.images) > 1:
        return replace(request, references=tuple(read_image(image, limits, "image") for image in task.images))
    pixels, alpha = read_layers(task.images[0], limits, "image")
    mask = None
    if task.mask is not None:
        mask = _read_mask(task.mask, limits)
    elif task.holes and alpha is not None and not alpha.all():
        mask = OPAQUE - alpha
    if mask is not None and mask.shape != pixels.shape[:2]:
        sizes = [f"{shape[1]}x{shape[0]}" for shape in (mask.shape, pixels.shape)]
        raise http_error(400, f"mask has {sizes[0]} pixels, expected those of image: {sizes[1]}", param="mask")
    return replace(request, image=pixels, mask=mask)


def _read_mask(mask: bytes, limits: Limits) -> Pixels:
    """Convert OpenAI's mask, which is transparent where the image is edited, to the engine's, which is white there."""
    alpha = read_alpha(mask, limits, "mask")
    if alpha is None:
        message = "mask has no transparency, expected transparent pixels where to edit"
        raise http_error(400, message, param="mask")
    return OPAQUE - alpha


def _link(state: ServerState, file: str, task: _Task) -> dict[str, str]:
    kind = task.output.format
    name = state.image_links.add(base64.b64decode(file), f"image/{kind}")
    return {"url": f"{task.base_url}{LINKS}/{name}.{kind}"}


async def _get_file(state: ServerState, request: Request) -> Response:
    """Send an image that has a link."""
    image = state.image_links.find(request.path_params["name"].partition(".")[0])
    if image is None:
        raise http_error(404, "there is no such image, or its time is over")
    return Response(image.data, media_type=image.content_type, headers={"cache-control": "private, no-store"})


def _usage() -> dict[str, Any]:
    """Return a usage without tokens, which OpenAI's types require."""
    none = {"image_tokens": 0, "text_tokens": 0}
    return {"input_tokens": 0, "input_tokens_details": none, "output_tokens": 0, "total_tokens": 0}
