"""Routes of the web interface AUTOMATIC1111, which many programs support: ``/sdapi/v1/...``."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cyllama.errors import CancelledError
from cyllama.media.encoded import decode_base64
from cyllama.sd.samplers import sampler_label, scheduler_label
from cyllama.server.config import Limits, ModelEntry
from cyllama.server.http.current_job import Job
from cyllama.server.http.errors import http_error
from cyllama.server.http.response_stream import JSON, ResponseStream
from cyllama.server.http.task import TaskResponse
from cyllama.server.image_jobs import ImageRequest, encode_image, generate, parse_options, read_image
from cyllama.server.received_images import read_mask
from cyllama.server.state import ServerState

if TYPE_CHECKING:
    from cyllama.sd import ImageResult

__all__ = ["sdapi_routes"]

BASE = "/sdapi/v1"
# Field of a request: option of `cyllama.sd.ImageOptions`.
OPTIONS = {
    "negative_prompt": "negative_prompt",
    "width": "width",
    "height": "height",
    "steps": "steps",
    "cfg_scale": "cfg_scale",
    "distilled_cfg_scale": "guidance",
    "sampler_name": "sampler",
    "sampler_index": "sampler",
    "scheduler": "scheduler",
    "seed": "seed",
    "eta": "eta",
    "denoising_strength": "strength",
}
OTHER_FIELDS = ("prompt", "init_images", "mask", "batch_size", "n_iter", "override_settings", "send_images")
CHECKPOINT = "sd_model_checkpoint"  # key of override_settings with the model's name
# Values that clients send by default for fields without support; other values are errors.
NEUTRAL: tuple[object, ...] = (None, False, 0, -1, "", "None", "Automatic", [], {})
IGNORED = ("styles", "save_images", "do_not_save_samples", "do_not_save_grid", "force_task_id", "resize_mode")


def sdapi_routes(state: ServerState) -> list[Route]:
    """Return the routes of AUTOMATIC1111's API."""
    return [
        Route(f"{BASE}/txt2img", partial(_post, state, False), methods=["POST"]),
        Route(f"{BASE}/img2img", partial(_post, state, True), methods=["POST"]),
        Route(f"{BASE}/progress", partial(_progress, state), methods=["GET"]),
        Route(f"{BASE}/interrupt", partial(_interrupt, state), methods=["POST"]),
        Route(f"{BASE}/sd-models", partial(_models, state), methods=["GET"]),
    ]


async def _post(state: ServerState, from_image: bool, request: Request) -> TaskResponse:
    state.queues["sd"].check()
    async with state.request_body() as body:
        fields = await body.json(request)
        override = fields.get("override_settings") or {}
        if not isinstance(override, dict) or set(override) - {CHECKPOINT}:
            message = f"override_settings is {override!r:.100}, expected {CHECKPOINT} only"
            raise http_error(400, message, param="override_settings")
        entry = state.find_model(override.get(CHECKPOINT), "images")
        options = _parse_fields(fields, state.config.limits, from_image)
        return state.respond("sd", partial(_generate, state, entry, fields, options), body.keep())


def _parse_fields(fields: Mapping[str, Any], limits: Limits, from_image: bool) -> dict[str, Any]:
    """Check the fields, and return the options among them."""
    if not isinstance(fields.get("prompt", ""), str):
        raise http_error(400, f"prompt is {fields['prompt']!r:.100}, expected a string", param="prompt")
    given: dict[str, Any] = {}
    for name, value in fields.items():
        if name in OPTIONS:
            if value is not None and (from_image or name != "denoising_strength") and value not in ("", "Automatic"):
                given[OPTIONS[name]] = value
        elif name not in OTHER_FIELDS and name not in IGNORED and value not in NEUTRAL:
            raise http_error(400, f"{name} is {value!r:.100}, but {name} is not supported", param=name)
    counts = [fields.get("batch_size") or 1, fields.get("n_iter") or 1]
    if not all(isinstance(count, int) and not isinstance(count, bool) and count > 0 for count in counts):
        message = f"batch_size and n_iter are {counts!r:.100}, expected positive integers"
        raise http_error(400, message, param="batch_size")
    given["batch_size"] = counts[0] * counts[1]
    images = fields.get("init_images") or []
    is_valid = isinstance(images, list) and all(isinstance(image, str) for image in images)
    if not is_valid or len(images) != int(from_image):
        expected = "a list with one image in base64" if from_image else "no images"
        raise http_error(400, f"init_images is {images!r:.100}, expected {expected}", param="init_images")
    return parse_options(given, limits)


def _generate(
    state: ServerState,
    entry: ModelEntry,
    fields: Mapping[str, Any],
    options: dict[str, Any],
    stream: ResponseStream,
    cancel: threading.Event,
) -> None:
    """Generate the images, in a thread."""
    limits = state.config.limits
    images = [
        read_image(_decode_base64(text, "init_images"), limits, "init_images")
        for text in fields.get("init_images") or ()
    ]
    mask = None
    if fields.get("mask"):
        mask = read_mask(_decode_base64(fields["mask"], "mask"), limits)
    if mask is not None and not images:
        raise http_error(400, "mask is given without an image, expected init_images", param="mask")
    request = ImageRequest(fields.get("prompt", ""), options, images[0] if images else None, mask)
    job = Job(cancel)
    try:
        result = generate(state, entry, request, job)
    except CancelledError:
        if not job.interrupted:
            raise
        previews = [] if job.preview is None else [encode_image(job.preview)]
        interrupted = {"images": previews, "parameters": {}, "info": '{"interrupted": true}'}
        stream.send(200, JSON, json.dumps(interrupted).encode())
        return
    send_images = fields.get("send_images", True) is not False
    response = {
        "images": [encode_image(image) for image in result] if send_images else [],
        "parameters": {name: value for name, value in fields.items() if name not in ("init_images", "mask")},
        "info": json.dumps(_info(result, entry)),
    }
    stream.send(200, JSON, json.dumps(response).encode())


def _info(result: ImageResult, entry: ModelEntry) -> dict[str, Any]:
    """Return the parameters of a result under AUTOMATIC1111's names."""
    parameters = result.parameters
    info = {
        "prompt": parameters["prompt"],
        "all_prompts": [parameters["prompt"]] * len(result),
        "negative_prompt": parameters["negative_prompt"],
        "seed": result.seeds[0],
        "all_seeds": result.seeds,
        "width": parameters["width"],
        "height": parameters["height"],
        "sampler_name": sampler_label(parameters["sampler"]),
        "steps": parameters["steps"],
        "cfg_scale": parameters["cfg_scale"],
        "batch_size": len(result),
        "sd_model_name": entry.name,
        "infotexts": result.infotexts,
    }
    if parameters["scheduler"] is not None:
        info["scheduler"] = scheduler_label(parameters["scheduler"])
    return info


def _decode_base64(text: object, name: str) -> bytes:
    """Decode base64 or a data URL; paths and addresses are errors."""
    if not isinstance(text, str):
        raise http_error(400, f"{name} is {text!r:.100}, expected base64", param=name)
    try:
        return decode_base64(text, name)
    except ValueError as error:
        raise http_error(400, f"{error}; URLs and paths are not opened", param=name) from None


async def _progress(state: ServerState, request: Request) -> TaskResponse:
    job = state.image_job.job
    with_preview = request.query_params.get("skip_current_image", "false").casefold() not in ("true", "1")
    return state.tasks.respond(state.status_queue, partial(_send_progress, state, job, with_preview))


def _send_progress(
    state: ServerState, job: Job | None, with_preview: bool, stream: ResponseStream, cancel: threading.Event
) -> None:
    """Send the progress of the job, in a thread because the preview has to be encoded."""
    step, steps = (job.step, job.steps) if job is not None else (0, 0)
    fraction = step / steps if steps else 0.0
    elapsed = time.monotonic() - job.began if job is not None else 0.0
    preview = job.preview if job is not None and with_preview else None
    response = {
        "progress": fraction,
        "eta_relative": elapsed / fraction - elapsed if fraction else 0.0,
        "state": {
            "skipped": False,
            "interrupted": job is not None and job.interrupted,
            "job": "" if job is None else "images",
            "job_count": state.queues["sd"].size,
            "job_no": 0,
            "sampling_step": step,
            "sampling_steps": steps,
        },
        "current_image": None if preview is None else encode_image(preview),
        "textinfo": None,
    }
    stream.send(200, JSON, json.dumps(response).encode())


async def _interrupt(state: ServerState, request: Request) -> Response:
    job = state.image_job.job
    if job is not None:
        job.interrupted = True
        job.cancel.set()
    return JSONResponse({})


async def _models(state: ServerState, request: Request) -> Response:
    return JSONResponse(
        [{"title": entry.name, "model_name": entry.name} for entry in state.entries if entry.kind == "sd"]
    )
