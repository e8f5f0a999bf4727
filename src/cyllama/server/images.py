"""OpenAI's routes for pictures, by `cyllama.sd`."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from PIL import Image
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.routing import Route

from cyllama.server.bodies import Body
from cyllama.server.config import Limits, ModelEntry
from cyllama.server.hub import Hub
from cyllama.server.jobs import Job
from cyllama.server.outbox import JSON, Outbox
from cyllama.server.pictures import FORMATS, OPTIONS, Wish, draw, encoded, options_of, read_picture
from cyllama.server.problems import problem
from cyllama.server.work import Work

__all__ = ["image_routes"]

SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")
# What OpenAI's models know and these do not: only what asks for nothing is taken.
NEUTRAL = {
    "background": ("auto", "opaque"),
    "moderation": ("auto", "low"),
    "quality": ("auto", "standard"),
    "input_fidelity": ("low",),
    "response_format": ("b64_json",),
}
OWN = ("prompt", "model", "n", "size", "output_format", "output_compression", "stream", "partial_images", "user")
FILES = ("image", "image[]", "mask")
OPAQUE = 255


@dataclass(frozen=True)
class _Form:
    """How the pictures come back."""

    format: str
    quality: int | None
    stream: bool
    partial_images: int
    event: str


def image_routes(hub: Hub) -> list[Route]:
    """The routes."""
    return [
        Route("/v1/images/generations", partial(_generations, hub), methods=["POST"]),
        Route("/v1/images/edits", partial(_edits, hub), methods=["POST"]),
    ]


async def _generations(hub: Hub, request: Request) -> Work:
    hub.gates["sd"].check()
    async with Body(hub) as body:
        fields = await body.json(request)
        entry = hub.entry(fields.get("model"), "images")
        wish = Wish(_prompt(fields), _options(fields, hub.config.limits))
        task = partial(_draw, hub, entry, wish, _form(fields, "image_generation"))
        return hub.work("sd", task, body.keep())


async def _edits(hub: Hub, request: Request) -> Work:
    hub.gates["sd"].check()
    async with Body(hub) as body:
        async with body.form(request) as form:
            fields = _fields(form)
            entry = hub.entry(fields.get("model"), "images")
            images = [await _file(f, "image") for name in FILES[:2] for f in form.getlist(name)]
            mask = await _file(form["mask"], "mask") if "mask" in form else None
        if not images:
            raise problem(400, "the form has no picture, expected a file called image", param="image")
        if mask is not None and len(images) > 1:
            raise problem(400, "a mask goes with one picture", param="mask")
        options = _options(fields, hub.config.limits)
        form_of = _form(fields, "image_edit")
        task = partial(_edit, hub, entry, (_prompt(fields), options, images, mask), form_of)
        return hub.work("sd", task, body.keep())


def _fields(form: FormData) -> dict[str, Any]:
    """The texts of a form as JSON would have had them."""
    found: dict[str, Any] = {}
    for name, value in form.multi_items():
        if name in FILES:
            continue
        if isinstance(value, UploadFile) or name in found:
            raise problem(400, f"{name} is a file or stands there twice, expected one text", param=name)
        kind = {"n": int, "output_compression": int, "partial_images": int}.get(name, OPTIONS.get(name, str))
        try:
            found[name] = value == "true" if name == "stream" else kind(value)
        except ValueError:
            raise problem(400, f"{name} is {value!r:.100}, expected {kind.__name__}", param=name) from None
    return found


async def _file(value: Any, name: str) -> bytes:
    if not isinstance(value, UploadFile):
        raise problem(400, f"{name} is a text, expected a file", param=name)
    return await value.read()


def _prompt(fields: Mapping[str, Any]) -> str:
    prompt = fields.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise problem(400, f"prompt is {prompt!r:.100}, expected a text", param="prompt")
    return prompt


def _options(fields: Mapping[str, Any], limits: Limits) -> dict[str, Any]:
    given = {name: value for name, value in fields.items() if name in OPTIONS}
    for name, value in fields.items():
        if name in NEUTRAL and value is not None and value not in NEUTRAL[name]:
            message = f"{name} is {value!r:.100}, expected {' or '.join(NEUTRAL[name])}"
            raise problem(400, message, param=name)
        if name not in OPTIONS and name not in NEUTRAL and name not in OWN:
            known = ", ".join([*OWN, *OPTIONS])
            raise problem(400, f"there is no field {name!r:.100}; known are {known}", param=name)
    if fields.get("n") is not None:
        given["batch_size"] = fields["n"]
    size = fields.get("size")
    if size not in (None, "auto"):
        match = SIZE.fullmatch(size) if isinstance(size, str) else None
        if match is None:
            raise problem(400, f"size is {size!r:.100}, expected such as '512x512'", param="size")
        given["width"], given["height"] = int(match[1]), int(match[2])
    return options_of(given, limits)


def _form(fields: Mapping[str, Any], event: str) -> _Form:
    format = fields.get("output_format") or "png"
    if format not in FORMATS:
        raise problem(400, f"output_format is {format!r:.100}, expected png, jpeg or webp", param="output_format")
    quality, partial_images = fields.get("output_compression"), fields.get("partial_images") or 0
    for name, value, most in (("output_compression", quality or 0, 100), ("partial_images", partial_images, 100)):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
            raise problem(400, f"{name} is {value!r:.100}, expected 0 to {most}", param=name)
    stream = fields.get("stream") or False
    if not isinstance(stream, bool):
        raise problem(400, f"stream is {stream!r:.100}, expected true or false", param="stream")
    if partial_images and not stream:
        raise problem(400, "partial_images goes with stream", param="partial_images")
    return _Form(format, quality, stream, partial_images, event)


def _edit(
    hub: Hub,
    entry: ModelEntry,
    given: tuple[str, dict[str, Any], list[bytes], bytes | None],
    form: _Form,
    out: Outbox,
    cancel: threading.Event,
) -> None:
    """In a thread: read the pictures, then draw."""
    prompt, options, images, mask = given
    limits = hub.config.limits
    pixels = [read_picture(image, limits, "image") for image in images]
    if len(pixels) > 1:
        wish = Wish(prompt, options, references=tuple(pixels))
    elif mask is not None:
        wish = Wish(prompt, options, pixels[0], _painted(mask, limits))
    else:
        wish = Wish(prompt, options, pixels[0])
    _draw(hub, entry, wish, form, out, cancel)


def _painted(mask: bytes, limits: Limits) -> Any:
    """OpenAI's masks are transparent where to paint, the engine's are white."""
    from io import BytesIO

    from cyllama.server.pictures_in import check_picture

    check_picture(mask, limits.pixels, "mask")
    try:
        with Image.open(BytesIO(mask)) as image:
            if not image.has_transparency_data:
                raise problem(400, "mask has no transparent pixels, which say where to paint", param="mask")
            alpha = np.asarray(image.convert("RGBA"))[..., 3]
    except OSError:
        raise problem(400, "mask is a damaged picture", param="mask") from None
    return OPAQUE - alpha


def _draw(hub: Hub, entry: ModelEntry, wish: Wish, form: _Form, out: Outbox, cancel: threading.Event) -> None:
    """In a thread: the pictures as JSON, or as events with what they look like on the way."""
    job = _Streamed(cancel, out, form) if form.stream else Job(cancel)
    made = draw(hub, entry, wish, job)
    size = "{}x{}".format(*made[0].size)
    files = [encoded(picture, form.format, form.quality) for picture in made]
    if isinstance(job, _Streamed):
        job.start()
        for file in files:
            job.send("completed", {"b64_json": file, "size": size, "usage": _usage()})
        return
    answer = {
        "created": int(time.time()),
        "data": [{"b64_json": file} for file in files],
        "output_format": form.format,
        "size": size,
        "seeds": made.seeds,
        "parameters": {k: v for k, v in made.parameters.items() if k != "version"},
    }
    out.answer(200, JSON, json.dumps(answer).encode())


def _usage() -> dict[str, Any]:
    """OpenAI's types ask for it; nothing is counted here."""
    none = {"image_tokens": 0, "text_tokens": 0}
    return {"input_tokens": 0, "input_tokens_details": none, "output_tokens": 0, "total_tokens": 0}


class _Streamed(Job):
    """A job whose previews are sent as they come."""

    def __init__(self, cancel: threading.Event, out: Outbox, form: _Form) -> None:
        super().__init__(cancel)
        self._out, self._form = out, form
        self._started = False
        self._sent = 0

    def start(self) -> None:
        """Begin the answer, once."""
        if not self._started:
            self._started = True
            self._out.start_events()

    def on_preview(self, picture: Image.Image, step: int) -> None:
        """Send it if it is one of those that were asked for."""
        super().on_preview(picture, step)
        due = self._form.partial_images * step // max(1, self.steps)
        if due > self._sent and step < self.steps:
            self.start()
            size = "{}x{}".format(*picture.size)
            content = {"b64_json": encoded(picture, self._form.format), "size": size}
            self.send("partial_image", content | {"partial_image_index": self._sent})
            self._sent += 1

    def send(self, kind: str, content: Mapping[str, Any]) -> None:
        """One event."""
        name = f"{self._form.event}.{kind}"
        common = {"type": name, "created_at": int(time.time()), "output_format": self._form.format}
        data = {**common, "background": "opaque", "quality": "auto", **content}
        self._out.write(f"event: {name}\ndata: {json.dumps(data)}\n\n".encode())
