"""Routes of AUTOMATIC1111's web interface, which many programs speak: ``/sdapi/v1/...``."""

from __future__ import annotations

import base64
import binascii
import json
import re
import threading
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cyllama.errors import CancelledError
from cyllama.media.image import to_mask
from cyllama.sd.samplers import sampler_label, scheduler_label
from cyllama.server.bodies import Body
from cyllama.server.config import Limits, ModelEntry
from cyllama.server.hub import Hub
from cyllama.server.jobs import Job
from cyllama.server.outbox import JSON, Outbox
from cyllama.server.pictures import Wish, draw, encoded, options_of, read_picture
from cyllama.server.pictures_in import check_picture
from cyllama.server.problems import problem
from cyllama.server.work import Work

__all__ = ["sdapi_routes"]

# Fields of a request: the option that they are.
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
OWN = ("prompt", "init_images", "mask", "batch_size", "n_iter", "override_settings", "send_images")
CHECKPOINT = "sd_model_checkpoint"  # of override_settings: the model's name
# What clients send without meaning it; a value that asks for something is refused by name.
NEUTRAL: tuple[Any, ...] = (None, False, 0, -1, "", "None", "Automatic", [], {})
IGNORED = ("styles", "save_images", "do_not_save_samples", "do_not_save_grid", "force_task_id", "resize_mode")
DATA = re.compile(r"data:image/[\w.+-]+;base64,")


def sdapi_routes(hub: Hub) -> list[Route]:
    """The routes."""
    base = "/sdapi/v1"
    return [
        Route(f"{base}/txt2img", partial(_post, hub, False), methods=["POST"]),
        Route(f"{base}/img2img", partial(_post, hub, True), methods=["POST"]),
        Route(f"{base}/progress", partial(_progress, hub), methods=["GET"]),
        Route(f"{base}/interrupt", partial(_interrupt, hub), methods=["POST"]),
        Route(f"{base}/sd-models", partial(_models, hub), methods=["GET"]),
    ]


async def _post(hub: Hub, from_picture: bool, request: Request) -> Work:
    hub.gates["sd"].check()
    async with Body(hub) as body:
        fields = await body.json(request)
        override = fields.get("override_settings") or {}
        if not isinstance(override, dict) or set(override) - {CHECKPOINT}:
            raise problem(400, f"override_settings may name {CHECKPOINT} alone", param="override_settings")
        entry = hub.entry(override.get(CHECKPOINT), "images")
        given = _checked(fields, hub.config.limits, from_picture)
        return hub.work("sd", partial(_draw, hub, entry, fields, given), body.keep())


def _checked(fields: Mapping[str, Any], limits: Limits, from_picture: bool) -> dict[str, Any]:
    """The options."""
    if not isinstance(fields.get("prompt", ""), str):
        raise problem(400, f"prompt is {fields['prompt']!r:.100}, expected a text", param="prompt")
    given: dict[str, Any] = {}
    for name, value in fields.items():
        if name in OPTIONS:
            if value is not None and (from_picture or name != "denoising_strength") and value not in ("", "Automatic"):
                given[OPTIONS[name]] = value
        elif name not in OWN and name not in IGNORED and value not in NEUTRAL:
            raise problem(400, f"{name} is {value!r:.100}: the server cannot do that", param=name)
    counts = [fields.get("batch_size") or 1, fields.get("n_iter") or 1]
    if not all(isinstance(count, int) and not isinstance(count, bool) and count > 0 for count in counts):
        raise problem(400, f"batch_size and n_iter are {counts!r:.100}, expected numbers", param="batch_size")
    given["batch_size"] = counts[0] * counts[1]
    images = fields.get("init_images") or []
    if from_picture != bool(images):
        raise problem(400, f"init_images has {len(images)} pictures, expected {int(from_picture)}", param="init_images")
    if not isinstance(images, list) or len(images) > 1 or not all(isinstance(image, str) for image in images):
        raise problem(400, "init_images is no list of one text, base64", param="init_images")
    return options_of(given, limits)


def _draw(
    hub: Hub,
    entry: ModelEntry,
    fields: Mapping[str, Any],
    options: dict[str, Any],
    out: Outbox,
    cancel: threading.Event,
) -> None:
    """In a thread."""
    limits = hub.config.limits
    images = [
        read_picture(_decoded(text, "init_images"), limits, "init_images") for text in fields.get("init_images") or ()
    ]
    mask = None
    if fields.get("mask"):
        data = _decoded(fields["mask"], "mask")
        check_picture(data, limits.pixels, "mask")
        mask = to_mask(data, "mask")
    if mask is not None and not images:
        raise problem(400, "a mask goes with a picture", param="mask")
    wish = Wish(fields.get("prompt", ""), options, images[0] if images else None, mask)
    job = Job(cancel)
    try:
        made = draw(hub, entry, wish, job)
    except CancelledError:
        if not job.interrupted:
            raise
        found = [] if job.preview is None else [encoded(job.preview)]
        out.answer(200, JSON, json.dumps({"images": found, "parameters": {}, "info": '{"interrupted": true}'}).encode())
        return
    wanted = fields.get("send_images", True) is not False
    parameters = {name: value for name, value in fields.items() if name not in ("init_images", "mask")}
    files = [encoded(picture) for picture in made] if wanted else []
    answer = {"images": files, "parameters": parameters, "info": json.dumps(_info(made, entry))}
    out.answer(200, JSON, json.dumps(answer).encode())


def _info(made: Any, entry: ModelEntry) -> dict[str, Any]:
    """What a result tells of how it was made."""
    info = {
        "prompt": made.parameters["prompt"],
        "all_prompts": [made.parameters["prompt"]] * len(made),
        "negative_prompt": made.parameters["negative_prompt"],
        "seed": made.seeds[0],
        "all_seeds": made.seeds,
        "width": made.parameters["width"],
        "height": made.parameters["height"],
        "sampler_name": sampler_label(made.parameters["sampler"]),
        "steps": made.parameters["steps"],
        "cfg_scale": made.parameters["cfg_scale"],
        "batch_size": len(made),
        "sd_model_name": entry.name,
        "infotexts": made.infotexts,
    }
    if made.parameters["scheduler"] is not None:
        info["scheduler"] = scheduler_label(made.parameters["scheduler"])
    return info


def _decoded(text: Any, name: str) -> bytes:
    if not isinstance(text, str):
        raise problem(400, f"{name} is {text!r:.100}, expected base64", param=name)
    match = DATA.match(text)
    try:
        return base64.b64decode(text[match.end() :] if match else text, validate=True)
    except (binascii.Error, ValueError):
        raise problem(400, f"{name} is {text[:60]!r}, expected base64: nothing is opened", param=name) from None


async def _progress(hub: Hub, request: Request) -> Work:
    job = hub.jobs.current
    wanted = request.query_params.get("skip_current_image", "false").casefold() not in ("true", "1")
    return hub.work("self", partial(_tell, hub, job, wanted))


def _tell(hub: Hub, job: Job | None, wanted: bool, out: Outbox, cancel: threading.Event) -> None:
    """In a thread, as a preview is made a file."""
    step, steps = (job.step, job.steps) if job is not None else (0, 0)
    part = step / steps if steps else 0.0
    spent = time.monotonic() - job.began if job is not None else 0.0
    preview = job.preview if job is not None and wanted else None
    state = {
        "skipped": False,
        "interrupted": job is not None and job.interrupted,
        "job": "" if job is None else "pictures",
        "job_count": hub.gates["sd"].inside,
        "job_no": 0,
        "sampling_step": step,
        "sampling_steps": steps,
    }
    found = {
        "progress": part,
        "eta_relative": spent / part - spent if part else 0.0,
        "state": state,
        "current_image": None if preview is None else encoded(preview),
        "textinfo": None,
    }
    out.answer(200, JSON, json.dumps(found).encode())


async def _interrupt(hub: Hub, request: Request) -> Response:
    job = hub.jobs.current
    if job is not None:
        job.interrupted = True
        job.cancel.set()
    return JSONResponse({})


async def _models(hub: Hub, request: Request) -> Response:
    return JSONResponse(
        [{"title": entry.name, "model_name": entry.name} for entry in hub.config.models if entry.kind == "sd"]
    )
