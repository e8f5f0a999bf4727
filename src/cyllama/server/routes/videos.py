"""OpenAI's routes of videos: jobs that run in the background, with diffusion models that generate videos."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cyllama import models
from cyllama.server.config import ModelEntry
from cyllama.server.http.clients import client_name
from cyllama.server.http.errors import http_error
from cyllama.server.http.request_body import RequestBody
from cyllama.server.image_jobs import OPTIONS, Pixels
from cyllama.server.limits import Limits
from cyllama.server.received_images import decode_text, read_image
from cyllama.server.routes._image_fields import parse_fields
from cyllama.server.state import ServerState
from cyllama.server.video_jobs import VideoJob, VideoJobs, VideoRequest

__all__ = ["video_routes"]

REFERENCE = "input_reference"
OWN_FIELDS = ("prompt", "model", "seconds", "size", REFERENCE, "frames", "fps")
NOT_OF_VIDEOS = ("n", "batch_size", "loras", "control_image", "control_strength")
MAX_SECONDS, MAX_FPS = 600, 120
MAX_ITEMS = 100
ORDERS = ("asc", "desc")
VARIANTS = {"video": "video/mp4", "thumbnail": "image/webp"}


def video_routes(state: ServerState) -> list[Route]:
    """Return the routes of videos."""
    path, videos = "/v1/videos", VideoJobs(state.config.limits)
    return [
        Route(path, partial(_create, state, videos), methods=["POST"]),
        Route(path, partial(_list, videos), methods=["GET"]),
        Route(path + "/{id}", partial(_retrieve, videos), methods=["GET"]),
        Route(path + "/{id}", partial(_delete, videos), methods=["DELETE"]),
        Route(path + "/{id}/content", partial(_content, videos), methods=["GET"]),
    ]


async def _create(state: ServerState, videos: VideoJobs, http_request: Request) -> Response:
    state.queues["sd"].check()
    async with state.request_body() as body:
        fields, file = await _read(http_request, body)
        entry = state.find_model(fields.get("model"), "images")
        request = _parse(fields, file, state.config.limits)
        await asyncio.to_thread(_check_model, entry)
        size = "{width}x{height}".format_map(request.options) if "width" in request.options else "auto"
        job = VideoJob(client_name(http_request.scope), entry, request, size)
        videos.start(state, job, body.release)
        body.keep()
    return JSONResponse(videos.describe(job))


async def _read(http_request: Request, body: RequestBody) -> tuple[dict[str, Any], bytes | None]:
    """Return the fields, with the types that they have in JSON, and the file of the first frame."""
    if not http_request.headers.get("content-type", "").casefold().startswith("multipart/form-data"):
        return await body.json(http_request), None
    fields: dict[str, Any] = {}
    file = None
    async with body.form(http_request) as form:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile) and name == REFERENCE and file is None:
                file = await value.read()
                continue
            if name.startswith(f"{REFERENCE}[") and name.endswith("]"):  # an object, as OpenAI's client writes it
                inner = fields.setdefault(REFERENCE, {})
                key = name[len(REFERENCE) + 1 : -1]
                if isinstance(inner, dict) and key not in inner:
                    inner[key] = value
                    continue
            if isinstance(value, UploadFile) or name in fields:
                raise http_error(400, f"{name} is a file or is given twice, expected one text", param=name)
            kind = int if name in ("frames", "fps") else OPTIONS.get(name, str)
            try:
                fields[name] = kind(value)
            except ValueError:
                raise http_error(400, f"{name} is {value!r:.100}, expected {kind.__name__}", param=name) from None
    return fields, file


def _parse(fields: Mapping[str, Any], file: bytes | None, limits: Limits) -> VideoRequest:
    """Check the fields.

    Raises
    ------
    HTTPException
        400.
    """
    prompt = fields.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise http_error(400, f"prompt is {prompt!r:.100}, expected a string that is not empty", param="prompt")
    names = _video_options()
    for name in fields:
        if name not in names and name not in OWN_FIELDS:
            known = ", ".join([*OWN_FIELDS, *names])
            raise http_error(400, f"unknown field {name!r:.100}; expected one of {known}", param=name)
    options = parse_fields({k: v for k, v in fields.items() if k in names or k == "size"}, limits)
    for name, most in (("frames", limits.video_frames), ("fps", MAX_FPS)):
        if fields.get(name) is not None:
            options[name] = _number(fields[name], name, most)
    seconds = fields.get("seconds")
    if seconds is not None:
        seconds = _number(int(seconds) if isinstance(seconds, str) and seconds.isdecimal() else seconds, "seconds")
        if "frames" in options:
            raise http_error(400, "seconds and frames are both given, expected one", param="frames")
    if file is not None and REFERENCE in fields:
        raise http_error(400, f"{REFERENCE} is given twice, expected one file or object", param=REFERENCE)
    data = file if file is not None else _reference(fields.get(REFERENCE))
    image = None if data is None else partial(_first_frame, data, limits)
    return VideoRequest(prompt, options, seconds, image)


def _video_options() -> list[str]:
    from cyllama.sd.options import VideoOptions

    fields = {item.name for item in dataclasses.fields(VideoOptions)}
    return [name for name in OPTIONS if name in fields and name not in NOT_OF_VIDEOS]


def _number(value: object, name: str, most: int = MAX_SECONDS) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise http_error(400, f"{name} is {value!r:.100}, expected 1 to {most}", param=name)
    return value


def _reference(value: Any) -> str | None:
    """Return the base64 of the first frame."""
    if value is None:
        return None
    where = f"{REFERENCE}.image_url"
    if not isinstance(value, Mapping) or set(value) != {"image_url"} or not isinstance(value["image_url"], str):
        expected = "a file, or an object with image_url, a data URL"
        raise http_error(400, f"{REFERENCE} is {str(value)!r:.100}, expected {expected}", param=where)
    return str(value["image_url"])


def _first_frame(data: bytes | str, limits: Limits) -> Pixels:
    found = data if isinstance(data, bytes) else decode_text(data, f"{REFERENCE}.image_url")
    return read_image(found, limits, REFERENCE)


def _check_model(entry: ModelEntry) -> None:
    """Reject a model that does not generate videos, as far as the header of its file shows it; and a lack of PyAV."""
    from cyllama.errors import UnsupportedError
    from cyllama.sd.families import detect
    from cyllama.sd.video import check_video_path

    path = entry.settings.get("diffusion_model") or entry.model
    file = None if path is None else models.check(path)
    file = models.cached(file) if isinstance(file, str) else file
    family = None if file is None else detect(file)  # a model that is not downloaded has no header
    if family is not None and not family.makes_videos:
        message = f"model is {entry.name!r:.100} ({family.name}), which generates images, not videos"
        raise http_error(400, message, param="model")
    try:
        check_video_path("video.mp4")
    except UnsupportedError as error:
        raise http_error(400, f"the server cannot write videos: {error}") from None


async def _retrieve(videos: VideoJobs, request: Request) -> Response:
    job = videos.find(request.path_params["id"], client_name(request.scope))
    return JSONResponse(videos.describe(job))


async def _delete(videos: VideoJobs, request: Request) -> Response:
    id_ = request.path_params["id"]
    videos.delete(id_, client_name(request.scope))
    return JSONResponse({"id": id_, "object": "video.deleted", "deleted": True})


async def _list(videos: VideoJobs, request: Request) -> Response:
    query = request.query_params
    for name in query:
        if name not in ("after", "limit", "order"):
            raise http_error(400, f"unknown parameter {name!r:.100}, expected after, limit or order", param=name)
    order, limit = query.get("order", "desc"), query.get("limit", "20")
    if order not in ORDERS:
        raise http_error(400, f"order is {order!r:.100}, expected asc or desc", param="order")
    most = _number(int(limit) if limit.isdecimal() and len(limit) < 9 else limit, "limit", MAX_ITEMS)
    jobs = videos.of_client(client_name(request.scope))
    jobs = jobs if order == "asc" else jobs[::-1]
    if (after := query.get("after")) is not None:
        ids = [job.id for job in jobs]
        if after not in ids:
            raise http_error(400, f"after is {after!r:.100}, expected the id of a video", param="after")
        jobs = jobs[ids.index(after) + 1 :]
    shown = [videos.describe(job) for job in jobs[:most]]
    ends = {"first_id": shown[0]["id"] if shown else None, "last_id": shown[-1]["id"] if shown else None}
    return JSONResponse({"object": "list", "data": shown, "has_more": len(jobs) > most, **ends})


async def _content(videos: VideoJobs, request: Request) -> Response:
    job = videos.find(request.path_params["id"], client_name(request.scope))
    variant = request.query_params.get("variant", "video")
    if variant not in VARIANTS:
        raise http_error(400, f"variant is {variant!r:.100}, expected {' or '.join(VARIANTS)}", param="variant")
    if job.status != "completed":
        raise http_error(400, f"the video is {job.status}, expected completed", param="video_id")
    data = job.video if variant == "video" else job.thumbnail
    return Response(data, media_type=VARIANTS[variant], headers={"cache-control": "private, no-store"})
