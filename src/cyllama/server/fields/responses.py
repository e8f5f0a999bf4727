"""Fields of ``/v1/responses``."""

from __future__ import annotations

import functools

from cyllama.server.fields.chat import NO_SEARCH
from cyllama.server.fields.field import Field, RouteFields
from cyllama.server.fields.sampling import (
    BOOLEAN,
    COUNT,
    MODEL,
    STREAM,
    TEXT,
    TEXTS,
    engine_fields,
    ignored,
    list_of,
    one_of,
)

__all__ = ["response_fields", "response_input_fields"]

FUNCTION = {
    "type": "object",
    "required": ["type", "name"],
    "properties": {
        "type": one_of("function"),
        "name": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"},
        "description": {"type": ["string", "null"]},
        "parameters": {"type": ["object", "null"]},
        "strict": {"type": ["boolean", "null"]},
    },
}
NAMED = {"type": "object", "required": ["type", "name"], "properties": {"type": one_of("function"), "name": TEXT}}
ALLOWED = {
    "type": "object",
    "required": ["type", "mode", "tools"],
    "properties": {"type": one_of("allowed_tools"), "mode": one_of("auto", "required"), "tools": list_of(NAMED, 1)},
}
FORMAT = {
    "type": "object",
    "required": ["type"],
    "properties": {
        "type": one_of("text", "json_object", "json_schema"),
        "name": TEXT,
        "description": {"type": ["string", "null"]},
        "schema": {"type": "object"},
        "strict": {"type": ["boolean", "null"]},
    },
    "additionalProperties": False,
}
TEXT_OPTIONS = {
    "type": "object",
    "properties": {"format": {"anyOf": [FORMAT, {"type": "null"}]}, "verbosity": {"enum": [None]}},
    "additionalProperties": False,
}
REASONING = {
    "type": "object",
    "properties": {
        "effort": {"type": ["string", "null"]},
        "summary": {"enum": ["auto", "concise", "detailed", None]},
        "generate_summary": {"enum": ["auto", "concise", "detailed", None]},
    },
    "additionalProperties": False,
}
INPUT = {"anyOf": [TEXT, list_of({"type": "object"}, 1)]}
INCLUDE = list_of(one_of("message.output_text.logprobs", "reasoning.encrypted_content"))
OWN = (
    MODEL,
    Field("input", INPUT, "A text, or the items of a conversation.", required=True),
    Field("instructions", TEXT, "A system message before the input."),
    Field("previous_response_id", TEXT, "Continue the conversation of a stored response."),
    Field("tools", list_of(FUNCTION), "Functions that the model may call."),
    Field(
        "tool_choice",
        {"anyOf": [one_of("auto", "none", "required"), NAMED, ALLOWED]},
        "`auto`, `none`, `required`, one function, or some of the functions.",
    ),
    Field("parallel_tool_calls", BOOLEAN, "Allow several calls in one response."),
    Field("text", TEXT_OPTIONS, "`format`: the text is JSON, or matches a JSON schema."),
    Field("reasoning", REASONING, "`effort`, as `reasoning_effort` of chats. `summary` is accepted and ignored."),
    Field("max_output_tokens", COUNT, "The most tokens of the response."),
    STREAM,
    Field(
        "stream_options",
        {"type": "object", "properties": {"include_obfuscation": BOOLEAN}, "additionalProperties": False},
        "Accepted and ignored.",
    ),
    Field("store", BOOLEAN, "Keep the response for `previous_response_id`; the default. The oldest are dropped."),
    Field("include", INCLUDE, "`message.output_text.logprobs`: return log probabilities."),
    Field("top_logprobs", {**COUNT, "maximum": 100}, "Log probabilities with this many alternatives."),
    Field("truncation", one_of("disabled"), "An input that exceeds the context is an error."),
    Field("background", one_of(False), "Responses are not computed in the background."),
    Field("metadata", {"type": "object"}, "Returned in the response."),
    Field("chat_template_kwargs", {"type": "object"}, "Variables of the chat template."),
    Field("stop", TEXTS, "Texts that end the generation. An empty text has no effect."),
    *ignored("user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "service_tier"),
)
UNSUPPORTED = {
    "conversation": "use previous_response_id",
    "max_tool_calls": "the client calls the tools",
    "max_tokens": "use max_output_tokens",
    "messages": "use input",
    "n": "a response has one choice",
    "prompt": "the server has no stored prompts",
    "response_format": "use text.format",
    "web_search_options": NO_SEARCH,
}
NO_EFFECT = ("response_fields", "return_tokens", "n", "n_cmpl", "max_tokens", "max_completion_tokens", "logprobs",
             "n_probs", "stream_options", "verbose", "continue_final_message", "echo", "json_schema",
             "post_sampling_probs")  # fmt: skip


@functools.cache
def response_fields() -> RouteFields:
    """Return the fields of ``/v1/responses``."""
    return RouteFields("Generate a response.", engine_fields(*NO_EFFECT, own=OWN), UNSUPPORTED)


@functools.cache
def response_input_fields() -> RouteFields:
    """Return the fields of ``/v1/responses/input_tokens``."""
    return RouteFields("Count the tokens of a response's input.", response_fields().fields, UNSUPPORTED)
