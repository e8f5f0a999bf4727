"""Routes for speech: OpenAI's transcriptions and translations, by `cyllama.whisper`."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.routing import Route

from cyllama.media.audio import AudioStream
from cyllama.server.bodies import Body
from cyllama.server.config import ModelEntry
from cyllama.server.hub import Hub
from cyllama.server.outbox import JSON, Outbox
from cyllama.server.problems import problem
from cyllama.server.work import Work
from cyllama.whisper.results import Segment, Transcription

__all__ = ["audio_routes"]

FORMATS = {"json": JSON, "verbose_json": JSON} | dict.fromkeys(("text", "srt", "vtt"), "text/plain; charset=utf-8")
GRANULARITIES = ("segment", "word")
TRUE, FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")


def _flag(text: str) -> bool:
    if text.casefold() not in TRUE + FALSE:
        raise ValueError("expected true or false")
    return text.casefold() in TRUE


# Fields of the form that are options of the transcription: (name of the option, reader)
OPTIONS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "language": ("language", str),
    "prompt": ("initial_prompt", str),
    "hotwords": ("hotwords", str),
    "temperature": ("temperature", float),
    "vad_filter": ("vad_filter", _flag),
    "beam_size": ("beam_size", int),
    "best_of": ("best_of", int),
    "condition_on_previous_text": ("condition_on_previous_text", _flag),
    "no_speech_threshold": ("no_speech_threshold", float),
}
OTHERS = ("file", "model", "response_format", "stream", "timestamp_granularities", "timestamp_granularities[]")


@dataclass(frozen=True)
class _Wish:
    """What a request asks for."""

    data: bytes
    options: dict[str, Any]
    format: str
    stream: bool
    granularities: tuple[str, ...]


def audio_routes(hub: Hub) -> list[Route]:
    """The routes."""
    return [
        Route("/v1/audio/transcriptions", partial(_post, hub, "transcribe"), methods=["POST"]),
        Route("/audio/transcriptions", partial(_post, hub, "transcribe"), methods=["POST"]),
        Route("/v1/audio/translations", partial(_post, hub, "translate"), methods=["POST"]),
    ]


async def _post(hub: Hub, task: str, request: Request) -> Work:
    hub.gates["whisper"].check()
    async with Body(hub) as body:
        async with body.form(request) as form:
            entry = hub.entry(form.get("model"), "speech")
            wish = await _wish(form, task)
        return hub.work("whisper", partial(_transcribe, hub, entry, wish), body.keep())


async def _wish(form: FormData, task: str) -> _Wish:
    files = form.getlist("file")
    if len(files) != 1 or not isinstance(files[0], UploadFile):
        raise problem(400, f"the form has {len(files)} fields called file, expected one with the sound", param="file")
    options: dict[str, Any] = {"task": task}
    for name, value in form.multi_items():
        if name in OPTIONS:
            option, read = OPTIONS[name]
            try:
                options[option] = read(str(value))
            except ValueError as error:
                raise problem(400, f"{name} is {str(value)!r:.100}: {error}", param=name) from None
        elif name not in OTHERS:
            known = ", ".join([*OPTIONS, *OTHERS[:-1]])
            raise problem(400, f"there is no field {name!r:.100}; known are {known}", param=name)
    format = str(form.get("response_format") or "json")
    if format not in FORMATS:
        message = f"response_format is {format!r:.100}, expected one of {', '.join(FORMATS)}"
        raise problem(400, message, param="response_format")
    wanted = [str(v) for name in OTHERS[-2:] for v in form.getlist(name)]
    for granularity in wanted:
        if granularity not in GRANULARITIES:
            message = f"timestamp_granularities has {granularity!r:.100}, expected segment or word"
            raise problem(400, message, param="timestamp_granularities")
    if "word" in wanted:
        options["word_timestamps"] = True
    try:
        stream = _flag(str(form.get("stream") or "false"))
    except ValueError as error:
        raise problem(400, f"stream is {str(form.get('stream'))!r:.100}: {error}", param="stream") from None
    options = {name: value for name, value in options.items() if value != ""}
    return _Wish(await files[0].read(), options, format, stream, tuple(wanted) or ("segment",))


def _transcribe(hub: Hub, entry: ModelEntry, wish: _Wish, out: Outbox, cancel: threading.Event) -> None:
    """In a thread."""
    duration = AudioStream(wish.data, allow_empty=True).duration
    most = hub.config.limits.audio_seconds
    if duration > most:
        raise problem(413, f"the sound has {duration:.0f} s, at most {most:g} are allowed", param="file")
    with hub.use(entry, cancel) as whisper:
        if not wish.stream:
            found = whisper(wish.data, cancel=cancel, **wish.options)
            out.answer(200, FORMATS[wish.format], _written(found, wish, whisper.languages))
            return
        started = False

        def start() -> None:
            nonlocal started
            if not started:
                started = True
                out.start_events()

        def send(segment: Segment) -> None:
            start()
            _event(out, {"type": "transcript.text.delta", "delta": segment.text})

        found = whisper(wish.data, cancel=cancel, on_segment=send, **wish.options)
        start()
        _event(out, {"type": "transcript.text.done", "text": found.text})


def _event(out: Outbox, data: dict[str, Any]) -> None:
    out.write(f"data: {json.dumps(data)}\n\n".encode())


def _written(found: Transcription, wish: _Wish, languages: dict[str, str]) -> bytes:
    if wish.format in ("srt", "vtt"):
        return found.to_text(wish.format).encode()
    if wish.format == "text":
        return f"{found.text}\n".encode()
    usage = {"type": "duration", "seconds": found.duration}
    if wish.format == "json":
        return json.dumps({"text": found.text, "usage": usage}).encode()
    whole = found.to_dict() | {"language": languages.get(found.language, found.language), "usage": usage}
    for segment in whole["segments"]:
        segment.pop("words", None)  # they stand in one list, as OpenAI has it
    if "segment" not in wish.granularities:
        del whole["segments"]
    return json.dumps(whole).encode()
