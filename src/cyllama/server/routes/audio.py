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


# Names of OpenAI's models, for a server with one speech model.
OPENAI_MODELS = ("whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe")
# Fields of OpenAI's "chunking_strategy" and the options of voice activity detection.
SERVER_VAD = {
    "threshold": "threshold",
    "prefix_padding_ms": "speech_pad_ms",
    "silence_duration_ms": "min_silence_duration_ms",
}
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
INCLUDE_FIELDS = ("include", "include[]")
UNUSED_FIELDS = ("user",)  # change nothing
OTHER_FIELDS = (
    "file", "model", "response_format", "stream", "chunking_strategy", *INCLUDE_FIELDS, *UNUSED_FIELDS,
    *GRANULARITY_FIELDS,
)  # fmt: skip


@dataclass(frozen=True)
class _AudioRequest:
    """A request for a transcription."""

    data: bytes
    options: dict[str, Any]
    format: ResponseFormat
    stream: bool
    granularities: tuple[str, ...]
    logprobs: bool


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
            entry = _find_model(state, form.get("model"))
            request = await _parse_form(form, task)
        return state.respond("whisper", partial(_transcribe, state, entry, request), body.keep())


def _find_model(state: ServerState, name: object) -> ModelEntry:
    """Return the model of a request; the names of OpenAI's models are those of a single speech model."""
    if name in OPENAI_MODELS and state.find_entry(str(name)) is None:
        speech = [entry for entry in state.entries if entry.kind == "whisper"]
        name = speech[0].name if len(speech) == 1 else name
    return state.find_model(name, "speech")


async def _parse_form(form: FormData, task: str) -> _AudioRequest:
    files = form.getlist("file")
    if len(files) != 1 or not isinstance(files[0], UploadFile):
        raise http_error(400, f"the form has {len(files)} fields named file, expected one audio file", param="file")
    options = _parse_options(form, task)
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
    logprobs = _includes_logprobs(form)
    if logprobs and format != "json":
        raise http_error(400, f"include[] has 'logprobs', but response_format is {format!r}", param="include")
    return _AudioRequest(await files[0].read(), options, format, stream, granularities, logprobs)


def _parse_options(form: FormData, task: str) -> dict[str, Any]:
    options: dict[str, Any] = {"task": task}
    for name, value in form.multi_items():
        if name in OPTIONS:
            option, parse = OPTIONS[name]
            try:
                if value != "":  # forms of browsers have all fields
                    options[option] = parse(str(value))
            except ValueError as error:
                raise http_error(400, f"{name} is {str(value)!r:.100}: {error}", param=name) from None
        elif name == "chunking_strategy":
            options |= _chunking(str(value))
        elif name not in OTHER_FIELDS:
            known = ", ".join(dict.fromkeys([*OPTIONS, *OTHER_FIELDS]))
            raise http_error(400, f"unknown field {name!r:.100}; expected one of {known}", param=name)
    if options.get("temperature") == 0:
        del options["temperature"]  # of OpenAI: increased automatically while a window fails
    return options


def _chunking(text: str) -> dict[str, Any]:
    """Return the options of a chunking strategy: "auto", or an object of the type server_vad."""
    if text in ("", "auto"):
        return {"vad_filter": True} if text else {}
    try:
        given = json.loads(text)
        kind = given.pop("type")
        parameters = {SERVER_VAD[name]: value for name, value in given.items() if value is not None}
    except (ValueError, TypeError, AttributeError, KeyError):
        kind, parameters = None, {}
    if kind != "server_vad":
        message = f"""chunking_strategy is {text!r:.200}, expected auto or {{"type": "server_vad"}} with """
        raise http_error(400, message + ", ".join(SERVER_VAD), param="chunking_strategy")
    return {"vad_filter": True, "vad_parameters": parameters}


def _includes_logprobs(form: FormData) -> bool:
    found = [str(value) for name in INCLUDE_FIELDS for value in form.getlist(name)]
    for value in found:
        if value != "logprobs":
            raise http_error(400, f"include[] has {value!r:.100}, expected logprobs", param="include")
    return bool(found)


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
            stream.send(
                200, CONTENT_TYPES[request.format], _format_result(result, request, whisper.languages, audio.warning)
            )
            return
        started = False

        def start() -> None:
            nonlocal started
            if not started:
                started = True
                stream.start_events()

        def send_segment(segment: Segment) -> None:
            start()
            event = {"type": "transcript.text.delta", "delta": segment.text}
            _write_event(stream, event | ({"logprobs": _logprobs(segment)} if request.logprobs else {}))

        result = whisper(audio, cancel=cancel, on_segment=send_segment, **request.options)
        start()
        done: dict[str, Any] = {"type": "transcript.text.done", "text": result.text}
        if request.logprobs:
            done["logprobs"] = [entry for segment in result.segments for entry in _logprobs(segment)]
        _write_event(stream, done)


def _logprobs(segment: Segment) -> list[dict[str, Any]]:
    return [
        {"token": token.text, "logprob": token.logprob, "bytes": list(token.raw)} for token in segment.token_details
    ]


def _write_event(stream: ResponseStream, data: dict[str, Any]) -> None:
    stream.write(f"data: {json.dumps(data)}\n\n".encode())


def _format_result(
    result: Transcription, request: _AudioRequest, languages: Mapping[str, str], warning: str | None
) -> bytes:
    if request.format in ("srt", "vtt"):
        return result.to_text(request.format).encode()
    if request.format == "text":
        return f"{result.text}\n".encode()
    more: dict[str, Any] = {"usage": {"type": "duration", "seconds": result.duration}}
    if warning is not None:  # not of OpenAI: the file is damaged
        more["warnings"] = [warning]
    if request.format == "json":
        body: dict[str, Any] = {"text": result.text, **more}
        if request.logprobs:
            body["logprobs"] = [entry for segment in result.segments for entry in _logprobs(segment)]
        return json.dumps(body).encode()
    found = result.to_dict() | {"language": languages.get(result.language, result.language)} | more
    for segment in found["segments"]:
        segment.pop("words", None)  # OpenAI's format has one list of words beside the segments
    if "segment" not in request.granularities:
        del found["segments"]
    return json.dumps(found).encode()
