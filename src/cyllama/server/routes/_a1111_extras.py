"""Routes of AUTOMATIC1111's API for images that exist: enlarge them, and read their parameters."""

from __future__ import annotations

import html
import io
import json
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from cyllama._cancel import raise_if_cancelled
from cyllama.media.image_file import open_image
from cyllama.sd.metadata import infotext_labels, parameters_of
from cyllama.server.fields.automatic1111 import EXTRAS, EXTRAS_BATCH, INFO
from cyllama.server.fields.form import FormFields
from cyllama.server.http.clients import account_name
from cyllama.server.http.current_job import JOB_ID, Job, check_job_id
from cyllama.server.http.errors import http_error
from cyllama.server.http.response_stream import JSON, ResponseStream
from cyllama.server.http.task import TaskResponse
from cyllama.server.image_jobs import ImageFormat, encode_image
from cyllama.server.received_images import check_image, decode_text
from cyllama.server.routes._a1111_images import decode_image
from cyllama.server.routes._a1111_settings import AccountSettings
from cyllama.server.routes._a1111_upscale import Enlargement, Enlarger, parse_enlargement
from cyllama.server.state import ServerState

__all__ = ["extras_routes"]

BASE = "/sdapi/v1"
OWN_KEYS = ("parameters", "exif", "icc_profile", "xmp", "photoshop", "jfif", "dpi")  # of Pillow's `info`


def extras_routes(state: ServerState, settings: AccountSettings) -> list[Route]:
    """Return the routes for images that exist."""
    return [
        Route(f"{BASE}/extra-single-image", partial(_enlarge, state, settings, EXTRAS), methods=["POST"]),
        Route(f"{BASE}/extra-batch-images", partial(_enlarge, state, settings, EXTRAS_BATCH), methods=["POST"]),
        Route(f"{BASE}/png-info", partial(_png_info, state), methods=["POST"]),
    ]


async def _enlarge(state: ServerState, settings: AccountSettings, form: FormFields, request: Request) -> TaskResponse:
    async with state.request_body() as body:
        fields = form.check(await body.json(request))
        plan = parse_enlargement(fields, state.config)
        images = fields["imageList"] if form is EXTRAS_BATCH else [{"data": fields["image"]}]
        if len(images) > state.config.limits.media:
            message = f"imageList has {len(images)} images, at most {state.config.limits.media} are allowed"
            raise http_error(400, f"{message} (limits.media)", param="imageList")
        if "force_task_id" in fields:
            request.scope[JOB_ID] = check_job_id(fields["force_task_id"], "force_task_id")
        output = settings.output(account_name(request.scope))
        names = "images" if form is EXTRAS_BATCH else "image"
        returned = fields.get("show_extras_results", True)
        work = partial(_send_enlarged, state, images, plan, output, names if returned else None)
        if plan.networks:
            return state.respond("sd", work, body.keep())
        return state.tasks.respond(state.file_queue, work, body.keep(), state.image_jobs)


def _send_enlarged(
    state: ServerState,
    images: Sequence[Mapping[str, Any]],
    plan: Enlargement,
    output: tuple[ImageFormat, int],
    name: str | None,
    stream: ResponseStream,
    cancel: threading.Event,
) -> None:
    """Enlarge the images, in a thread."""
    job = Job(cancel, images=len(images), passes=max(1, len(plan.networks)))
    state.image_jobs.begin(job)
    pixels = [decode_image(image["data"], state.config.limits, "image") for image in images]
    found = []
    with Enlarger(plan, state.config, job) as enlarger:
        for array in pixels:
            enlarger.check(array, "image")
        for number, array in enumerate(pixels):
            raise_if_cancelled(job)
            job.begin_image(number)
            found.append(enlarger.enlarge(array))
    sizes = ", ".join(f"{image.width}x{image.height}" for image in found)
    response: dict[str, Any] = {"html_info": f"<p>{html.escape(plan.upscaler or 'None')}: {sizes}</p>"}
    if name is not None:
        files = [encode_image(image, *output) for image in found]
        response[name] = files if name == "images" else files[0]
    stream.send(200, JSON, json.dumps(response).encode())


async def _png_info(state: ServerState, request: Request) -> TaskResponse:
    async with state.request_body() as body:
        fields = INFO.check(await body.json(request))
        work = partial(_send_info, state, fields["image"])
        return state.tasks.respond(state.file_queue, work, body.keep())


def _send_info(state: ServerState, image: str, stream: ResponseStream, cancel: threading.Event) -> None:
    """Read the parameters of an image, in a thread."""
    data = decode_text(image, "image")
    limits = state.config.limits
    check_image(data, limits.received_pixels, "image")
    try:
        with open_image(io.BytesIO(data)) as opened:
            opened.load()  # a text chunk may follow the pixels
            text = parameters_of(opened) or ""
            items = {str(key): value for key, value in opened.info.items() if key not in OWN_KEYS}
    except Exception as error:  # Pillow's readers raise many types for damaged files
        raise http_error(400, "image is not a valid image", param="image") from error
    items = {key: value for key, value in items.items() if isinstance(value, str)}
    if len(text) + sum(map(len, items.values())) > limits.text:
        raise http_error(413, f"image has more than {limits.text:,} characters of text (limits.text)", param="image")
    response = {"info": text, "items": {"parameters": text, **items}, "parameters": infotext_labels(text)}
    stream.send(200, JSON, json.dumps(response).encode())
