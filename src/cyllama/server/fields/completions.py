"""Fields of ``/v1/completions``, and of llama-server's own completions."""

from __future__ import annotations

import functools

from cyllama.server.fields.field import Field, RouteFields
from cyllama.server.fields.sampling import BOOLEAN, COUNT, MODEL, STREAM, TEXT, TEXTS, engine_fields, ignored, list_of

__all__ = ["PROMPT", "completion_fields", "infill_fields", "native_completion_fields"]

TOKENS = list_of({"anyOf": [COUNT, TEXT]}, 1)  # and texts between them
MEDIA_PROMPT = {
    "type": "object",
    "required": ["prompt_string"],
    "properties": {"prompt_string": TEXT, "multimodal_data": {"type": "array"}},
    "additionalProperties": False,
}
PROMPT = {"anyOf": [TEXT, TOKENS, MEDIA_PROMPT, list_of({"anyOf": [TEXT, TOKENS, MEDIA_PROMPT]}, 1)]}
SLOT = Field("id_slot", {"type": "integer", "minimum": -1}, "The slot that computes the request; -1: any.")
OPTIONS = {
    "type": "object",
    "properties": {"include_usage": BOOLEAN, "include_obfuscation": BOOLEAN},
    "additionalProperties": False,
}
STOP = Field("stop", TEXTS, "Texts that end the generation. An empty text has no effect.")
CHAT_ONLY = ("continue_final_message", "reasoning_format")


@functools.cache
def completion_fields() -> RouteFields:
    """Return the fields of ``/v1/completions``."""
    own = (
        MODEL,
        Field("prompt", PROMPT, "A text, tokens, or a list of them.", required=True),
        STREAM,
        Field("stream_options", OPTIONS, "`include_usage`: end the stream with the usage."),
        Field("suffix", TEXT, "Text after the generated one, for models that were trained for it."),
        Field("echo", BOOLEAN, "Begin the text with the prompt, and `logprobs` with those of its tokens."),
        Field("best_of", {"type": "integer", "minimum": 1}, "Generate this many texts and return the `n` best."),
        Field("logprobs", {**COUNT, "maximum": 100}, "Return log probabilities, with this many alternatives."),
        STOP,
        SLOT,
        *ignored("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"),
    )
    return RouteFields("Continue a text.", engine_fields(*CHAT_ONLY, "response_fields", own=own))


@functools.cache
def native_completion_fields() -> RouteFields:
    """Return the fields of ``/completion``."""
    own = (MODEL, Field("prompt", PROMPT, "A text, tokens, or a list of them.", required=True), STREAM, STOP, SLOT)
    return RouteFields(
        "Continue a text, in llama-server's form.", engine_fields(*CHAT_ONLY, "echo", "stream_options", own=own)
    )


@functools.cache
def infill_fields() -> RouteFields:
    """Return the fields of ``/infill``."""
    extra = list_of({"type": "object", "required": ["text"], "properties": {"text": TEXT, "filename": TEXT}})
    own = (
        MODEL,
        Field("input_prefix", TEXT, "The text before the generated one.", required=True),
        Field("input_suffix", TEXT, "The text after the generated one.", required=True),
        Field("input_extra", extra, "Other files: `text` and `filename`."),
        Field("prompt", TEXT, "The text after the prefix."),
        STREAM,
        STOP,
        SLOT,
    )
    return RouteFields(
        "Generate the text between two texts.", engine_fields(*CHAT_ONLY, "echo", "stream_options", own=own)
    )
