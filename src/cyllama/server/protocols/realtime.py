"""Settings and events of ``/v1/realtime``, in OpenAI's present form and in its beta form."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Never

from starlette.exceptions import HTTPException

from cyllama.server.fields.realtime import BETA_FORMATS, DELAYS, FORMATS, PROVISIONAL, SAMPLE_RATES, check_session
from cyllama.server.http.body_limits import ValueCounter, containers
from cyllama.server.http.errors import error_body, http_error, without_folders
from cyllama.server.http.response_stream import ResponseStream

__all__ = [
    "EventWriter",
    "Settings",
    "TurnDetection",
    "error_detail",
    "error_line",
    "new_id",
    "parse_event",
]

MAX_LEVELS = 8
MAX_VALUES = 1000  # of an event
STEP_AT_END = 28.0  # seconds, the most that StreamingTranscriber takes: the text is updated when the speech ends


@dataclass(frozen=True)
class TurnDetection:
    """How the server finds speech.

    Attributes
    ----------
    threshold : float
        Lowest probability of speech.
    prefix_padding_ms : int
        Milliseconds of audio before the speech that belong to it.
    silence_duration_ms : int
        Milliseconds of silence that end it.
    """

    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 500

    def to_dict(self) -> dict[str, Any]:
        """Return the value of ``turn_detection``."""
        return {"type": "server_vad", **{item.name: getattr(self, item.name) for item in fields(self)}}


@dataclass(frozen=True)
class Settings:
    """The settings of a session.

    Attributes
    ----------
    model : str or None
        Name of the model; None: the first speech model.
    language, prompt : str or None
    keywords : tuple of str
    delay : str or None
        How soon the text is updated while a person speaks; None: when the speech ends.
    format : str
        Such as ``"audio/pcm"``.
    rate : int
        Sample rate of the audio in Hz.
    turn_detection : TurnDetection or None
        None: the client ends each turn.
    provisional : bool
        Send text that later audio can change.
    """

    model: str | None = None
    language: str | None = None
    prompt: str | None = None
    keywords: tuple[str, ...] = ()
    delay: str | None = None
    format: str = "audio/pcm"
    rate: int = SAMPLE_RATES["audio/pcm"]
    turn_detection: TurnDetection | None = field(default_factory=TurnDetection)
    provisional: bool = False

    @property
    def step(self) -> float:
        """Seconds of new audio after which the text is updated."""
        return STEP_AT_END if self.delay is None else DELAYS[self.delay]

    @property
    def subtype(self) -> str:
        """The format of the audio as libsndfile names it."""
        return FORMATS[self.format]

    def updated(self, session: object, is_beta: bool) -> Settings:
        """Return the settings with the fields of ``session``; others stay.

        Raises
        ------
        HTTPException
            400; `param` names the field.
        """
        given = check_session(session, is_beta)
        found = self
        if "include" in given:
            found = replace(found, provisional=PROVISIONAL in (given["include"] or ()))
        audio = (given.get("audio") or {}).get("input") or {}
        if "turn_detection" in audio:
            found = replace(found, turn_detection=_turn_detection(audio["turn_detection"]))
        if audio.get("format") is not None:
            found = _with_format(found, audio["format"])
        if "transcription" in audio:
            given = {name: value for name, value in audio["transcription"].items() if value is not None}
            found = replace(
                found,
                model=given.get("model", found.model),
                language=given.get("language"),
                prompt=given.get("prompt"),
                keywords=tuple(given.get("keywords", ())),
                delay=given.get("delay"),
            )
        return found

    def to_dict(self, session_id: str, is_beta: bool) -> dict[str, Any]:
        """Return the value of ``session`` in an event."""
        head = {"id": session_id, "object": "realtime.transcription_session"}
        include = [PROVISIONAL] if self.provisional else None
        transcription = {
            "model": self.model,
            "language": self.language,
            "prompt": self.prompt,
            "keywords": list(self.keywords),
            "delay": self.delay,
        }
        turns = None if self.turn_detection is None else self.turn_detection.to_dict()
        if is_beta:
            formats = {new: old for old, new in BETA_FORMATS.items()}
            body = {"input_audio_format": formats[self.format], "input_audio_transcription": transcription}
            return {**head, **body, "turn_detection": turns, "include": include}
        format = {"type": self.format, "rate": self.rate}
        audio = {"format": format, "noise_reduction": None, "transcription": transcription, "turn_detection": turns}
        return {**head, "type": "transcription", "audio": {"input": audio}, "include": include}


def _turn_detection(value: Mapping[str, Any] | None) -> TurnDetection | None:
    if value is None:
        return None
    names = {item.name for item in fields(TurnDetection)}
    return TurnDetection(**{name: item for name, item in value.items() if name in names and item is not None})


def _with_format(settings: Settings, value: Mapping[str, Any]) -> Settings:
    format = value.get("type") or settings.format
    rate = value.get("rate") or SAMPLE_RATES[format]
    if format != "audio/pcm" and rate != SAMPLE_RATES[format]:
        message = f"session.audio.input.format.rate is {rate}, expected {SAMPLE_RATES[format]} with {format}"
        raise http_error(400, message, param="session.audio.input.format.rate")
    return replace(settings, format=format, rate=int(rate))


def new_id(prefix: str) -> str:
    """Return a new name of a session, an item or an event."""
    return f"{prefix}_{uuid.uuid4().hex[:24]}"


def parse_event(message: str | bytes) -> dict[str, Any]:
    """Parse a client's message.

    Raises
    ------
    HTTPException
        400 if it is not a JSON object with a ``type``.
    """
    if isinstance(message, bytes):
        raise http_error(400, f"the message has {len(message):,} binary bytes, expected a text with JSON")
    values = ValueCounter()
    values.add(message.encode("utf-8", "replace"))
    if values.count > MAX_VALUES:
        raise http_error(400, f"the message has more than {MAX_VALUES:,} values")
    try:
        event = json.loads(message, parse_constant=_reject_constant)
    except RecursionError:
        raise http_error(400, f"the message has more than {MAX_LEVELS} levels") from None
    except ValueError as error:
        raise http_error(400, f"the message is not valid JSON: {str(error)[:200]}") from None
    if not isinstance(event, dict):
        raise http_error(400, f"the message is a JSON {type(event).__name__}, expected an object")
    if any(level > MAX_LEVELS for level, _ in containers(event)):
        raise http_error(400, f"the message has more than {MAX_LEVELS} levels")
    for name, wanted in (("type", str), ("event_id", str | None)):
        if not isinstance(event.get(name), wanted):
            raise http_error(400, f"{name} is {event.get(name)!r:.100}, expected a string", param=name)
    return event


def _reject_constant(text: str) -> Never:
    """Reject NaN and Infinity, which Python's parser accepts."""
    raise ValueError(f"{text} is not a JSON number")


class EventWriter:
    """Writes the server's events, one JSON object in a line.

    Parameters
    ----------
    stream : ResponseStream
    is_beta : bool
        Use the names of the beta form.

    Attributes
    ----------
    is_beta : bool
    """

    def __init__(self, stream: ResponseStream, is_beta: bool) -> None:
        self._stream, self.is_beta = stream, is_beta

    def send(self, type: str, **fields: object) -> None:
        """Write an event; wait while the client reads too slowly.

        Raises
        ------
        CancelledError
        """
        self._stream.write(event_line(type, **fields))

    def error(self, error: HTTPException, event_id: str | None = None) -> None:
        """Write an error; `event_id` is that of the client's event which caused it."""
        self._stream.write(error_line(error, event_id))

    def session(self, what: str, settings: Settings, session_id: str) -> None:
        """Write the settings: the session is ``created`` or ``updated``."""
        name = f"transcription_session.{what}" if self.is_beta else f"session.{what}"
        self.send(name, session=settings.to_dict(session_id, self.is_beta))

    def item(self, item_id: str, previous_id: str | None) -> None:
        """Write that the buffer has become an item."""
        content = [{"type": "input_audio", "transcript": None}]
        item = {
            "id": item_id,
            "object": "realtime.item",
            "type": "message",
            "status": "completed",
            "role": "user",
            "content": content,
        }
        self.send("input_audio_buffer.committed", item_id=item_id, previous_item_id=previous_id)
        for what in ("created",) if self.is_beta else ("added", "done"):
            self.send(f"conversation.item.{what}", item=item, previous_item_id=previous_id)


def event_line(type: str, **fields: object) -> bytes:
    """Return an event of the server."""
    event = {"type": type, "event_id": new_id("event"), **fields}
    return json.dumps(event, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def error_line(error: HTTPException, event_id: str | None = None) -> bytes:
    """Return the event for an error."""
    return event_line("error", error={**error_detail(error), "event_id": event_id})


def error_detail(error: HTTPException) -> dict[str, Any]:
    """Return the value of ``error`` in an event; its code is a string."""
    body = error_body(error)
    return {**body, "message": without_folders(body["message"]), "code": str(body["code"])}
