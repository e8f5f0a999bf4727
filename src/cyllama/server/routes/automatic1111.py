"""Routes of the web interface AUTOMATIC1111, which many programs support: ``/sdapi/v1/...``."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cyllama.errors import CancelledError
from cyllama.sd.samplers import sampler_label, scheduler_label
from cyllama.server.fields.automatic1111 import EXTRAS, EXTRAS_BATCH, IMG2IMG, INFO, PROGRESS, SETTINGS, TXT2IMG
from cyllama.server.fields.field import RouteFields
from cyllama.server.http.clients import account_name
from cyllama.server.http.current_job import JOB_ID, Job, check_job_id
from cyllama.server.http.response_stream import JSON, ResponseStream
from cyllama.server.http.task import TaskResponse
from cyllama.server.image_jobs import Pixels, encode_image, generate, join_results
from cyllama.server.routes._a1111_extras import extras_routes
from cyllama.server.routes._a1111_images import Part
from cyllama.server.routes._a1111_lists import list_routes
from cyllama.server.routes._a1111_progress import progress_routes
from cyllama.server.routes._a1111_requests import Generation, check_generation, parse_generation, prepare
from cyllama.server.routes._a1111_settings import AccountSettings, ImageSettings
from cyllama.server.state import ServerState

if TYPE_CHECKING:
    from cyllama.sd import ImageResult

__all__ = ["SDAPI_FIELDS", "sdapi_routes"]

BASE = "/sdapi/v1"
HIRES = ("hires_size", "hires_upscaler", "hires_steps", "hires_strength")
SDAPI_FIELDS: dict[str, RouteFields] = {
    f"{BASE}/txt2img": TXT2IMG,
    f"{BASE}/img2img": IMG2IMG,
    f"{BASE}/options": SETTINGS,
    f"{BASE}/extra-single-image": EXTRAS,
    f"{BASE}/extra-batch-images": EXTRAS_BATCH,
    f"{BASE}/png-info": INFO,
    "/internal/progress": PROGRESS,
}
"""The fields of the routes with a body, by their paths."""


def sdapi_routes(state: ServerState) -> list[Route]:
    """Return the routes of AUTOMATIC1111's API."""
    settings = AccountSettings(state)
    return [
        Route(f"{BASE}/txt2img", partial(_post, state, settings, False), methods=["POST"]),
        Route(f"{BASE}/img2img", partial(_post, state, settings, True), methods=["POST"]),
        Route(f"{BASE}/options", partial(_get_options, settings), methods=["GET"]),
        Route(f"{BASE}/options", partial(_set_options, state, settings), methods=["POST"]),
        *extras_routes(state, settings),
        *list_routes(state, settings),
        *progress_routes(state),
    ]


async def _get_options(settings: AccountSettings, request: Request) -> Response:
    return JSONResponse(settings.values(account_name(request.scope)))


async def _set_options(state: ServerState, settings: AccountSettings, request: Request) -> Response:
    async with state.request_body() as body:
        settings.update(account_name(request.scope), await body.json(request))
    return JSONResponse(None)


async def _post(state: ServerState, settings: AccountSettings, from_image: bool, request: Request) -> TaskResponse:
    state.queues["sd"].check()
    async with state.request_body() as body:
        given = await body.json(request)
        fields = check_generation(given, from_image)
        account, overrides = account_name(request.scope), fields.get("override_settings", {})
        options = settings.of_request(account, overrides)
        generation = parse_generation(fields, given, options, state.config)
        if "force_task_id" in fields:
            request.scope[JOB_ID] = check_job_id(fields["force_task_id"], "force_task_id")
        if not fields.get("override_settings_restore_afterwards", True):
            settings.update(account, overrides)
        return state.respond("sd", partial(_generate, state, options, generation), body.keep())


def _generate(
    state: ServerState,
    settings: ImageSettings,
    generation: Generation,
    stream: ResponseStream,
    cancel: threading.Event,
) -> None:
    """Generate the images, in a thread; those before an interruption are sent as well."""
    request, part = prepare(generation, state.config)
    job = Job(cancel)
    interrupted, result = False, None
    try:
        result = generate(state, settings.entry, request, job)
    except CancelledError:
        if cancel.is_set() and not job.interrupted:
            raise
        interrupted = job.interrupted
        result = join_results(job.results) if job.results else None
    images: Sequence[Image.Image]
    if result is None:  # no image is finished
        images = [] if job.preview is None else [_enlarged(job.preview, generation)]
    else:
        images = result if part is None else [_pasted(image, part) for image in result]
    info = _info(result, generation, settings) | {"interrupted": interrupted}
    files = [encode_image(image, settings.format, settings.quality) for image in images]
    response = {
        "images": files if generation.send_images else [],
        "parameters": dict(generation.parameters),
        "info": json.dumps(info),
    }
    stream.send(200, JSON, json.dumps(response).encode())


def _enlarged(preview: Image.Image, generation: Generation) -> Image.Image:
    """Return a preview, which is small, in the size of the request."""
    options = generation.options
    return preview.resize((options["width"], options["height"])) if "width" in options else preview


def _pasted(image: Image.Image, part: Part) -> Image.Image:
    """Return the image into which a generated part was pasted, with the parameters of the part."""
    from cyllama.sd import GeneratedImage

    pixels: Pixels = part.paste(np.asarray(image))
    return GeneratedImage.from_pixels(pixels, image.info.get("parameters", ""))


def _info(result: ImageResult | None, generation: Generation, settings: ImageSettings) -> dict[str, Any]:
    """Return the parameters of a result under AUTOMATIC1111's names; without a result those of the request."""
    found: dict[str, Any] = {**generation.options, "prompt": generation.prompt}
    if result is not None:
        found |= result.parameters
    seeds = [] if result is None else result.seeds
    count = len(seeds)
    sampler, scheduler = found.get("sampler"), found.get("scheduler")
    info = {
        "prompt": found["prompt"],
        "all_prompts": [found["prompt"]] * count,
        "negative_prompt": found.get("negative_prompt", ""),
        "all_negative_prompts": [found.get("negative_prompt", "")] * count,
        "seed": seeds[0] if seeds else found.get("seed", -1),
        "all_seeds": seeds,
        "width": found.get("width"),
        "height": found.get("height"),
        "sampler_name": None if sampler is None else sampler_label(sampler) if result is not None else sampler,
        "steps": found.get("steps"),
        "cfg_scale": found.get("cfg_scale"),
        "batch_size": count,
        "denoising_strength": found.get("strength"),
        "clip_skip": found.get("clip_skip"),
        "sd_model_name": settings.entry.name,
        "infotexts": [] if result is None else result.infotexts,
        "index_of_first_image": 0,
        "styles": list(generation.parameters.get("styles") or ()),
        "version": found.get("version"),
        "extra_generation_params": {k: v for k, v in found.items() if k in HIRES and v is not None},
    }
    if scheduler is not None:
        info["scheduler"] = scheduler_label(scheduler) if result is not None else scheduler
    return info
