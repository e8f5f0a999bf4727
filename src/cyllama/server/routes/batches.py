"""OpenAI's routes ``/v1/files`` and ``/v1/batches``."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cyllama.server.batches.content import file_content
from cyllama.server.batches.jobs import BatchJobs
from cyllama.server.batches.requests import batch_urls, is_text
from cyllama.server.batches.store import BatchStore
from cyllama.server.http.clients import KEY
from cyllama.server.http.errors import http_error
from cyllama.server.state import ServerState

__all__ = ["batch_routes"]

PURPOSE, RESULT_PURPOSE = "batch", "batch_output"
MAX_NAME = 255  # characters of a file's name
MAX_LISTED = {"files": 10_000, "batches": 100}
DEFAULT_LISTED = {"files": 10_000, "batches": 20}
EXPIRY_SECONDS = (3600, 30 * 24 * 3600)
BATCH_FIELDS = ("input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after")
FILE_FIELDS = ("file", "purpose", "expires_after[anchor]", "expires_after[seconds]")
MAX_METADATA, MAX_METADATA_KEY, MAX_METADATA_VALUE = 16, 64, 512
NUMBER = re.compile(r"[0-9]{1,12}")


def batch_routes(state: ServerState, store: BatchStore, jobs: BatchJobs) -> list[Route]:
    """Return the routes of files and batches."""
    common = (state, store)
    return [
        Route("/v1/files", partial(_create_file, *common), methods=["POST"]),
        Route("/v1/files", partial(_list_files, *common), methods=["GET"]),
        Route("/v1/files/{id}", partial(_retrieve_file, *common), methods=["GET"]),
        Route("/v1/files/{id}", partial(_delete_file, *common), methods=["DELETE"]),
        Route("/v1/files/{id}/content", partial(_file_content, *common), methods=["GET"]),
        Route("/v1/batches", partial(_create_batch, *common, jobs), methods=["POST"]),
        Route("/v1/batches", partial(_list_batches, *common), methods=["GET"]),
        Route("/v1/batches/{id}", partial(_retrieve_batch, *common), methods=["GET"]),
        Route("/v1/batches/{id}/cancel", partial(_cancel_batch, *common, jobs), methods=["POST"]),
    ]


def _owner(state: ServerState, request: Request) -> str:
    """Return the caller: the hash of its key, which stays the same when other keys are added; empty without keys."""
    number = request.scope.get(KEY)
    return "" if number is None else hashlib.sha256(state.config.api_keys[number].encode()).hexdigest()


async def _create_file(state: ServerState, store: BatchStore, request: Request) -> Response:
    async with state.request_body() as body, body.form(request) as form:
        for name in form:
            if name not in FILE_FIELDS or len(form.getlist(name)) > 1:
                known = ", ".join(FILE_FIELDS)
                raise http_error(400, f"unknown or repeated field {name!r:.100}, expected {known}", param=name)
        file, purpose = form.get("file"), form.get("purpose")
        if not isinstance(file, UploadFile):
            raise http_error(400, "the form has no field named file, expected a file of requests", param="file")
        if purpose != PURPOSE:
            raise http_error(400, f"purpose is {purpose!r:.100}, expected {PURPOSE!r}", param="purpose")
        prefix = "expires_after["
        given = {name.removeprefix(prefix)[:-1]: value for name, value in form.items() if name.startswith(prefix)}
        expiry = _expiry(given or None, "expires_after")
        filename = (file.filename or "file.jsonl").replace("\0", "")[:MAX_NAME]
        if not is_text(filename):
            message = f"the name of the file is {filename!r:.100}, expected text without lone surrogates"
            raise http_error(400, message, param="file")
        owner = _owner(state, request)
        found = await asyncio.to_thread(store.add_file, owner, filename, PURPOSE, file.file, expiry)
    return JSONResponse(found.to_dict())


def _expiry(value: object, name: str) -> int | None:
    """Return the seconds of OpenAI's ``{"anchor": "created_at", "seconds": N}``."""
    if value is None:
        return None
    if not isinstance(value, Mapping) or set(value) != {"anchor", "seconds"} or value["anchor"] != "created_at":
        raise http_error(400, f"{name} is {value!r:.100}, expected anchor ('created_at') and seconds", param=name)
    seconds, (least, most) = value["seconds"], EXPIRY_SECONDS
    if isinstance(seconds, str) and NUMBER.fullmatch(seconds):  # of a form
        seconds = int(seconds)
    if isinstance(seconds, bool) or not isinstance(seconds, int) or not least <= seconds <= most:
        message = f"{name}.seconds is {seconds!r:.100}, expected {least:,} to {most:,}"
        raise http_error(400, message, param=f"{name}.seconds")
    return seconds


async def _list_files(state: ServerState, store: BatchStore, request: Request) -> Response:
    query = _query(request, ("purpose", "after", "limit", "order"))
    purpose, order = query.get("purpose"), query.get("order", "desc")
    if purpose not in (None, PURPOSE, RESULT_PURPOSE):
        message = f"purpose is {purpose!r:.100}, expected {PURPOSE} or {RESULT_PURPOSE}"
        raise http_error(400, message, param="purpose")
    if order not in ("asc", "desc"):
        raise http_error(400, f"order is {order!r:.100}, expected asc or desc", param="order")
    direction: Literal["asc", "desc"] = "asc" if order == "asc" else "desc"
    found, more = await asyncio.to_thread(
        store.list_files,
        _owner(state, request),
        purpose=purpose,
        after=query.get("after"),
        limit=_limit(query, "files"),
        order=direction,
    )
    return _listed([file.to_dict() for file in found], more)


def _query(request: Request, known: tuple[str, ...]) -> dict[str, str]:
    for name in request.query_params:
        if name not in known or len(request.query_params.getlist(name)) > 1:
            wanted = ", ".join(known)
            raise http_error(400, f"unknown or repeated parameter {name!r:.100}, expected {wanted}", param=name)
    return dict(request.query_params)


def _limit(query: Mapping[str, str], kind: str) -> int:
    text, most = query.get("limit", str(DEFAULT_LISTED[kind])), MAX_LISTED[kind]
    if not NUMBER.fullmatch(text) or not 1 <= int(text) <= most:
        raise http_error(400, f"limit is {text!r:.100}, expected 1 to {most:,}", param="limit")
    return int(text)


def _listed(items: list[dict[str, Any]], more: bool) -> Response:
    first, last = (items[0]["id"], items[-1]["id"]) if items else (None, None)
    return JSONResponse({"object": "list", "data": items, "first_id": first, "last_id": last, "has_more": more})


async def _retrieve_file(state: ServerState, store: BatchStore, request: Request) -> Response:
    found = await asyncio.to_thread(store.find_file, _owner(state, request), request.path_params["id"])
    return JSONResponse(found.to_dict())


async def _delete_file(state: ServerState, store: BatchStore, request: Request) -> Response:
    file_id = request.path_params["id"]
    await asyncio.to_thread(store.delete_file, _owner(state, request), file_id)
    return JSONResponse({"id": file_id, "object": "file", "deleted": True})


async def _file_content(state: ServerState, store: BatchStore, request: Request) -> Response:
    found = await asyncio.to_thread(store.find_file, _owner(state, request), request.path_params["id"])
    try:
        return await file_content(store.path(found.id), found.filename, request)
    except FileNotFoundError:  # deleted meanwhile
        raise http_error(404, f"there is no file {found.id!r}") from None


async def _create_batch(state: ServerState, store: BatchStore, jobs: BatchJobs, request: Request) -> Response:
    async with state.request_body() as body:
        fields = await body.json(request)
    for name in fields:
        if name not in BATCH_FIELDS:
            raise http_error(400, f"unknown field {name!r:.100}, expected {', '.join(BATCH_FIELDS)}", param=name)
    file_id, endpoint = fields.get("input_file_id"), fields.get("endpoint")
    if not isinstance(file_id, str) or not is_text(file_id):
        raise http_error(400, f"input_file_id is {file_id!r:.100}, expected a string", param="input_file_id")
    urls = batch_urls()
    if not isinstance(endpoint, str) or endpoint not in urls:
        raise http_error(400, f"endpoint is {endpoint!r:.100}, expected one of {', '.join(urls)}", param="endpoint")
    if fields.get("completion_window") != "24h":
        given = fields.get("completion_window")
        raise http_error(400, f"completion_window is {given!r:.100}, expected '24h'", param="completion_window")
    metadata = _metadata(fields.get("metadata"))
    expiry = _expiry(fields.get("output_expires_after"), "output_expires_after")
    state.tasks.check()
    owner = _owner(state, request)
    found = await asyncio.to_thread(store.create_batch, owner, file_id, endpoint, metadata, expiry)
    jobs.wake()
    return JSONResponse(found.fields)


def _metadata(value: object) -> dict[str, str] | None:
    if value is None:
        return None
    wanted = f"at most {MAX_METADATA} strings of up to {MAX_METADATA_VALUE} characters, with keys of {MAX_METADATA_KEY}"
    if not isinstance(value, dict) or len(value) > MAX_METADATA:
        raise http_error(400, f"metadata is {value!r:.100}, expected {wanted}", param="metadata")
    for key, text in value.items():
        if len(key) > MAX_METADATA_KEY or not isinstance(text, str) or len(text) > MAX_METADATA_VALUE:
            raise http_error(400, f"metadata[{key!r:.100}] is {text!r:.100}, expected {wanted}", param="metadata")
        if not is_text(key) or not is_text(text):
            message = f"metadata[{key!r:.100}] is {text!r:.100}, expected text without lone surrogates"
            raise http_error(400, message, param="metadata")
    return value


async def _list_batches(state: ServerState, store: BatchStore, request: Request) -> Response:
    query = _query(request, ("after", "limit"))
    owner = _owner(state, request)
    found, more = await asyncio.to_thread(
        store.list_batches, owner, after=query.get("after"), limit=_limit(query, "batches")
    )
    return _listed([batch.fields for batch in found], more)


async def _retrieve_batch(state: ServerState, store: BatchStore, request: Request) -> Response:
    found = await asyncio.to_thread(store.find_batch, _owner(state, request), request.path_params["id"])
    return JSONResponse(found.fields)


async def _cancel_batch(state: ServerState, store: BatchStore, jobs: BatchJobs, request: Request) -> Response:
    found = await asyncio.to_thread(store.cancel, _owner(state, request), request.path_params["id"])
    jobs.cancel(found.id)
    return JSONResponse(found.fields)
