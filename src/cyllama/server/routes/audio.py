"""Routes of speech models: OpenAI's transcriptions and translations, with `cyllama.whisper`."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.routing import Route

from cyllama.errors import AudioTooLongError
from cyllama.media.audio import AudioStream
from cyllama.server.config import ModelEntry
from cyllama.server.http.errors import http_error
from cyllama.server.http.response_stream import JSON, ResponseStream
from cyllama.server.http.task import TaskResponse
from cyllama.server.state import ServerState
from cyllama.whisper.results import Segment, Transcription

__all__ = ["audio_routes"]

ResponseFormat = Literal["json", "verbose_json", "text", "srt", "vtt"]

TEXT = "text/plain; charset=utf-8"
CONTENT_TYPES: dict[ResponseFormat, str] = {
    "json": JSON,
    "verbose_json": JSON,
    "text": TEXT,
    "srt": TEXT,
    "vtt": TEXT,
}
GRANULARITIES = ("segment", "word")
TRUE, FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")


def _boolean(text: str) -> bool:
    if text.casefold() not in TRUE + FALSE:
        raise ValueError("expected true or false")
    return text.casefold() in TRUE


# Fields of the form that are options of the transcription: (name of the option, parser)
OPTIONS: dict[str, tuple[str, Callable[[str], str | int | float | bool]]] = {
    "language": ("language", str),
    "prompt": ("initial_prompt", str),
    "hotwords": ("hotwords", str),
    "temperature": ("temperature", float),
    "vad_filter": ("vad_filter", _boolean),
    "beam_size": ("beam_size", int),
    "best_of": ("best_of", int),
    "condition_on_previous_text": ("condition_on_previous_text", _boolean),
    "no_speech_threshold": ("no_speech_threshold", float),
}
GRANULARITY_FIELDS = ("timestamp_granularities", "timestamp_granularities[]")
OTHER_FIELDS = ("file", "model", "response_format", "stream", *GRANULARITY_FIELDS)


@dataclass(frozen=True)
class _AudioRequest:
    """A request for a transcription."""

    data: bytes
    options: dict[str, Any]
    format: ResponseFormat
    stream: bool
    granularities: tuple[str, ...]


def audio_routes(state: ServerState) -> list[Route]:
    """Return the routes of speech models."""
    return [
        Route("/v1/audio/transcriptions", partial(_post, state, "transcribe"), methods=["POST"]),
        Route("/audio/transcriptions", partial(_post, state, "transcribe"), methods=["POST"]),
        Route("/v1/audio/translations", partial(_post, state, "translate"), methods=["POST"]),
    ]


async def _post(state: ServerState, task: str, http_request: Request) -> TaskResponse:
    state.queues["whisper"].check()
    async with state.request_body() as body:
        async with body.form(http_request) as form:
            entry = state.find_model(form.get("model"), "speech")
            request = await _parse_form(form, task)
        return state.respond("whisper", partial(_transcribe, state, entry, request), body.keep())


async def _parse_form(form: FormData, task: str) -> _AudioRequest:
    files = form.getlist("file")
    if len(files) != 1 or not isinstance(files[0], UploadFile):
        raise http_error(400, f"the form has {len(files)} fields named file, expected one audio file", param="file")
    options: dict[str, Any] = {"task": task}
    for name, value in form.multi_items():
        if name in OPTIONS:
            option, parse = OPTIONS[name]
            try:
                options[option] = parse(str(value))
            except ValueError as error:
                raise http_error(400, f"{name} is {str(value)!r:.100}: {error}", param=name) from None
        elif name not in OTHER_FIELDS:
            known = ", ".join([*OPTIONS, *OTHER_FIELDS[:-1]])
            raise http_error(400, f"unknown field {name!r:.100}; expected one of {known}", param=name)
    format = str(form.get("response_format") or "json")
    if format not in CONTENT_TYPES:
        message = f"response_format is {format!r:.100}, expected one of {', '.join(get_args(ResponseFormat))}"
        raise http_error(400, message, param="response_format")
    granularities = _granularities(form)
    if "word" in granularities:
        options["word_timestamps"] = True
    try:
        stream = _boolean(str(form.get("stream") or "false"))
    except ValueError as error:
        raise http_error(400, f"stream is {str(form.get('stream'))!r:.100}: {error}", param="stream") from None
    options = {name: value for name, value in options.items() if value != ""}
    return _AudioRequest(await files[0].read(), options, format, stream, granularities)


def _granularities(form: FormData) -> tuple[str, ...]:
    found = tuple(str(value) for name in GRANULARITY_FIELDS for value in form.getlist(name))
    for granularity in found:
        if granularity not in GRANULARITIES:
            message = f"timestamp_granularities has {granularity!r:.100}, expected segment or word"
            raise http_error(400, message, param="timestamp_granularities")
    return found or ("segment",)


def _transcribe(
    state: ServerState, entry: ModelEntry, request: _AudioRequest, stream: ResponseStream, cancel: threading.Event
) -> None:
    """Transcribe the audio, in a thread."""
    most = state.config.limits.audio_seconds
    try:
        audio = AudioStream(request.data, allow_empty=True, max_seconds=most, cancel=cancel)
        audio.duration  # noqa: B018  # decodes audio of unknown length, before a model is loaded
    except AudioTooLongError:
        raise http_error(413, f"the audio is too long, at most {most:g} s are allowed", param="file") from None
    with state.use_whisper(entry, cancel) as whisper:
        if not request.stream:
            result = whisper(audio, cancel=cancel, **request.options)
            stream.send(200, CONTENT_TYPES[request.format], _format_result(result, request, whisper.languages))
            return
        started = False

        def start() -> None:
            nonlocal started
            if not started:
                started = True
                stream.start_events()

        def send_segment(segment: Segment) -> None:
            start()
            _write_event(stream, {"type": "transcript.text.delta", "delta": segment.text})

        result = whisper(audio, cancel=cancel, on_segment=send_segment, **request.options)
        start()
        _write_event(stream, {"type": "transcript.text.done", "text": result.text})


def _write_event(stream: ResponseStream, data: dict[str, Any]) -> None:
    stream.write(f"data: {json.dumps(data)}\n\n".encode())


def _format_result(result: Transcription, request: _AudioRequest, languages: Mapping[str, str]) -> bytes:
    if request.format in ("srt", "vtt"):
        return result.to_text(request.format).encode()
    if request.format == "text":
        return f"{result.text}\n".encode()
    usage = {"type": "duration", "seconds": result.duration}
    if request.format == "json":
        return json.dumps({"text": result.text, "usage": usage}).encode()
    found = result.to_dict() | {"language": languages.get(result.language, result.language), "usage": usage}
    for segment in found["segments"]:
        segment.pop("words", None)  # OpenAI's format has one list of words beside the segments
    if "segment" not in request.granularities:
        del found["segments"]
    return json.dumps(found).encode()
