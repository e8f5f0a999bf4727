"""Progress and interruption of image jobs in AUTOMATIC1111's API. A caller sees and stops its own jobs only."""

from __future__ import annotations

import json
import threading
import time
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cyllama.server.fields.automatic1111 import PROGRESS
from cyllama.server.http.clients import account_name, caller_name
from cyllama.server.http.current_job import JobEntry
from cyllama.server.http.response_stream import JSON, ResponseStream
from cyllama.server.http.task import TaskResponse
from cyllama.server.image_jobs import encode_image
from cyllama.server.state import ServerState

__all__ = ["progress_routes"]

BASE = "/sdapi/v1"
ID = "id_task"
STEPS = 10_000  # more than a pass has; previews are numbered by image and step


def progress_routes(state: ServerState) -> list[Route]:
    """Return the routes that report on jobs and stop them."""
    return [
        Route(f"{BASE}/progress", partial(_progress, state), methods=["GET"]),
        Route(f"{BASE}/interrupt", partial(_interrupt, state), methods=["POST"]),
        Route(f"{BASE}/skip", partial(_skip, state), methods=["POST"]),
        Route("/internal/progress", partial(_progress_by_id, state), methods=["POST"]),
        Route("/internal/pending-tasks", partial(_pending, state), methods=["GET"]),
        Route("/queue/status", partial(_queue, state), methods=["GET"]),
    ]


def _find(state: ServerState, request: Request) -> JobEntry | None:
    """Return the job that a request names; without a name the caller's only one."""
    name = request.query_params.get(ID)
    if name is not None:
        return state.image_jobs.find(account_name(request.scope), name)
    return state.image_jobs.only(caller_name(request.scope))


async def _progress(state: ServerState, request: Request) -> TaskResponse:
    with_preview = request.query_params.get("skip_current_image", "false").casefold() not in ("true", "1")
    work = partial(_send_progress, state, _find(state, request), with_preview)
    return state.tasks.respond(state.status_queue, work)


def _send_progress(
    state: ServerState, entry: JobEntry | None, with_preview: bool, stream: ResponseStream, cancel: threading.Event
) -> None:
    """Send the progress of a job, in a thread because the preview has to be encoded.

    Without a job of the caller, ``job_count`` is the number of requests of all callers, and the rest is empty.
    """
    job = entry.job if entry is not None else None
    preview = job.preview if job is not None and with_preview else None
    response = {
        "progress": 0.0 if job is None else job.fraction,
        "eta_relative": _eta(entry),
        "state": {
            "skipped": job is not None and job.skipped,
            "interrupted": entry is not None and entry.interrupted,
            "stopping_generation": False,
            "job": "" if entry is None else entry.id,
            "job_count": state.queues["sd"].size if job is None else job.images,
            "job_timestamp": "0",
            "job_no": 0 if job is None else job.image,
            "sampling_step": 0 if job is None else job.step,
            "sampling_steps": 0 if job is None else job.steps,
        },
        "current_image": None if preview is None else encode_image(preview),
        "textinfo": None if entry is None else _state_of(entry),
    }
    stream.send(200, JSON, json.dumps(response).encode())


def _state_of(entry: JobEntry) -> str | None:
    return "In queue..." if entry.job is None else None


def _eta(entry: JobEntry | None) -> float:
    if entry is None or entry.job is None or not entry.job.fraction:
        return 0.0
    elapsed = time.monotonic() - entry.job.began
    return elapsed / entry.job.fraction - elapsed


async def _progress_by_id(state: ServerState, request: Request) -> TaskResponse:
    async with state.request_body() as body:
        fields = PROGRESS.check(await body.json(request))
    account = account_name(request.scope)
    entry = state.image_jobs.find(account, fields[ID])
    finished = entry is None and state.image_jobs.is_finished(account, fields[ID])
    return state.tasks.respond(state.status_queue, partial(_send_progress_by_id, entry, finished, fields))


def _send_progress_by_id(
    entry: JobEntry | None, finished: bool, fields: dict[str, Any], stream: ResponseStream, cancel: threading.Event
) -> None:
    job = entry.job if entry is not None else None
    number = -1 if job is None else job.image * STEPS + job.step
    preview = job.preview if job is not None and fields.get("live_preview", True) else None
    if number == fields.get("id_live_preview", -1):
        preview = None
    response = {
        "active": job is not None,
        "queued": entry is not None and job is None,
        "completed": finished,
        "progress": None if job is None else job.fraction,
        "eta": None if job is None else _eta(entry),
        "live_preview": None if preview is None else f"data:image/png;base64,{encode_image(preview)}",
        "id_live_preview": number if preview is not None else fields.get("id_live_preview", -1),
        "textinfo": "Waiting..." if entry is None else _state_of(entry),
    }
    stream.send(200, JSON, json.dumps(response).encode())


async def _interrupt(state: ServerState, request: Request) -> Response:
    entry = _find(state, request)
    if entry is not None:
        entry.interrupt()
    return JSONResponse({})


async def _skip(state: ServerState, request: Request) -> Response:
    entry = _find(state, request)
    if entry is not None:
        entry.skip()
    return JSONResponse(None)


async def _queue(state: ServerState, request: Request) -> Response:
    """Report the length of the queue, in the form of the web interface's own queue."""
    return JSONResponse({"msg": "estimation", "queue_size": state.queues["sd"].size, "queue_eta": 0})


async def _pending(state: ServerState, request: Request) -> Response:
    """List the ids of the account's jobs."""
    tasks = [entry.id for entry in state.image_jobs.of_account(account_name(request.scope))]
    return JSONResponse({"size": len(tasks), "tasks": tasks})
