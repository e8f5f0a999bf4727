"""Fields of the sessions of ``/v1/realtime``: JSON schemas of OpenAI's present form and of its beta form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cyllama._json_check import check_value
from cyllama.errors import SchemaError
from cyllama.server.fields.sampling import TEXT, one_of
from cyllama.server.http.errors import http_error

__all__ = [
    "BETA_FORMATS",
    "DELAYS",
    "FORMATS",
    "PROVISIONAL",
    "SAMPLE_RATES",
    "TRANSCRIPTION_PATHS",
    "check_session",
]

FORMATS = {"audio/pcm": "PCM_16", "audio/pcmu": "ULAW", "audio/pcma": "ALAW"}
"""Formats of the audio: libsndfile's names."""
BETA_FORMATS = {"pcm16": "audio/pcm", "g711_ulaw": "audio/pcmu", "g711_alaw": "audio/pcma"}
SAMPLE_RATES = {"audio/pcm": 24_000, "audio/pcmu": 8_000, "audio/pcma": 8_000}
"""Sample rates of the formats in Hz; that of ``audio/pcm`` can be changed."""
DELAYS = {"minimal": 0.5, "low": 1.0, "medium": 2.0, "high": 4.0, "xhigh": 8.0}
"""Seconds of new audio after which the text is updated while a person speaks."""
TRANSCRIPTION_PATHS = {False: "session.audio.input.transcription", True: "session.input_audio_transcription"}
"""Place of the settings of the transcription, in the present form and in the beta form."""
PROVISIONAL = "item.input_audio_transcription.provisional"
"""A value of ``include`` that is not OpenAI's: send text that later audio can change."""


def _object(**fields: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": ["object", "null"], "properties": fields, "additionalProperties": False}


UNSUPPORTED = {"type": "null"}
OFF = {"enum": [False, None]}
STRING = {"type": ["string", "null"]}
NAMES = {"type": ["array", "null"], "items": TEXT}
MILLISECONDS = {"type": ["integer", "null"], "minimum": 0, "maximum": 10_000}
FORMAT = _object(
    type={"enum": [*FORMATS, None]},
    rate={"type": ["integer", "null"], "minimum": 8_000, "maximum": 192_000},
)
TRANSCRIPTION = {
    **_object(
        model=STRING,
        language=STRING,
        prompt=STRING,
        keywords=NAMES,
        delay={"enum": [*DELAYS, None]},
        languages=UNSUPPORTED,
    ),
    "type": "object",
}
TURN_DETECTION = _object(
    type={"enum": ["server_vad", None]},
    threshold={"type": ["number", "null"], "minimum": 0, "maximum": 1},
    prefix_padding_ms=MILLISECONDS,
    silence_duration_ms=MILLISECONDS,
    create_response=OFF,
    interrupt_response=OFF,
    idle_timeout_ms=UNSUPPORTED,
    eagerness=UNSUPPORTED,
)
INCLUDE = {"type": ["array", "null"], "items": one_of(PROVISIONAL)}
INPUT = _object(format=FORMAT, noise_reduction=UNSUPPORTED, transcription=TRANSCRIPTION, turn_detection=TURN_DETECTION)
SESSION = {
    **_object(type=one_of("transcription"), audio=_object(input=INPUT), include=INCLUDE),
    "type": "object",
    "required": ["type"],
}
BETA_SESSION = {
    **_object(
        input_audio_format={"enum": [*BETA_FORMATS, None]},
        input_audio_transcription=TRANSCRIPTION,
        turn_detection=TURN_DETECTION,
        include=INCLUDE,
        input_audio_noise_reduction=UNSUPPORTED,
        modalities=UNSUPPORTED,
        client_secret=UNSUPPORTED,
    ),
    "type": "object",
}


def check_session(value: object, is_beta: bool) -> dict[str, Any]:
    """Check the value of ``session`` and return it in the present form.

    Raises
    ------
    HTTPException
        400 if a field is unknown, unsupported or has another value than expected; `param` names it.
    """
    try:
        check_value(BETA_SESSION if is_beta else SESSION, value, "session")
    except SchemaError as error:
        raise http_error(400, str(error), param=error.path) from None
    assert isinstance(value, dict)
    if not is_beta:
        return value
    names = {"input_audio_transcription": "transcription", "turn_detection": "turn_detection"}
    audio = {new: value[old] for old, new in names.items() if old in value}
    if value.get("input_audio_format") is not None:
        audio["format"] = {"type": BETA_FORMATS[value["input_audio_format"]]}
    return {"audio": {"input": audio}, **{name: value[name] for name in ("include",) if name in value}}
