"""Fields of ``/v1/chat/completions``, of the routes that count its tokens, and of ``/apply-template``."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

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

__all__ = ["CHAT_DEFINITIONS", "NO_AUDIO", "NO_SEARCH", "REASONING_EFFORT", "chat_fields", "chat_prompt_fields"]

NO_AUDIO = "the models generate text"
NO_SEARCH = "the server does not search the web"
OLD_TOOLS = "use tools and tool_choice"
ROLES = one_of("system", "developer", "user", "assistant", "tool", "function")
REASONING_EFFORT = Field(
    "reasoning_effort", TEXT, "Effort of reasoning, a variable of the chat template; `none` disables reasoning."
)
CHAT_DEFINITIONS: Mapping[str, Any] = {
    "message": {
        "type": "object",
        "required": ["role"],
        "properties": {
            "role": ROLES,
            "content": {"anyOf": [TEXT, {"type": "null"}, list_of({"type": "object"})]},
            "name": {"type": ["string", "null"]},
            "tool_call_id": {"type": ["string", "null"]},
            "tool_calls": {"anyOf": [{"type": "null"}, list_of({"$ref": "#/$defs/tool_call"})]},
            "reasoning_content": {"type": ["string", "null"]},
        },
    },
    "tool_call": {
        "type": "object",
        "required": ["function"],
        "properties": {
            "id": {"type": ["string", "null"]},
            "type": {"enum": ["function", None]},
            "function": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": TEXT, "arguments": {"type": ["string", "object", "null"]}},
            },
        },
    },
    "tool": {
        "type": "object",
        "required": ["type", "function"],
        "properties": {
            "type": one_of("function"),
            "function": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"},
                    "description": {"type": ["string", "null"]},
                    "parameters": {"type": ["object", "null"]},
                    "strict": {"type": ["boolean", "null"]},
                },
            },
        },
    },
    "tool_choice": {
        "anyOf": [
            one_of("auto", "none", "required"),
            {
                "type": "object",
                "required": ["type", "function"],
                "properties": {
                    "type": one_of("function"),
                    "function": {"type": "object", "required": ["name"], "properties": {"name": TEXT}},
                },
            },
            {
                "type": "object",
                "required": ["type", "allowed_tools"],
                "properties": {
                    "type": one_of("allowed_tools"),
                    "allowed_tools": {
                        "type": "object",
                        "required": ["mode", "tools"],
                        "properties": {"mode": one_of("auto", "required"), "tools": list_of({"type": "object"}, 1)},
                    },
                },
            },
        ]
    },
    "response_format": {
        "anyOf": [
            one_of("text", "json_object"),
            {
                "type": "object",
                "required": ["type"],
                "properties": {
                    "type": one_of("text", "json_object", "json_schema"),
                    "schema": {"type": "object"},
                    "json_schema": {
                        "type": "object",
                        "properties": {
                            "name": TEXT,
                            "description": {"type": ["string", "null"]},
                            "schema": {"type": ["object", "null"]},
                            "strict": {"type": ["boolean", "null"]},
                        },
                        "additionalProperties": False,
                    },
                },
                "additionalProperties": False,
            },
        ]
    },
    "stream_options": {
        "type": "object",
        "properties": {
            "include_usage": BOOLEAN,
            "include_obfuscation": BOOLEAN,
            "continuous_usage_stats": one_of(False),
        },
        "additionalProperties": False,
    },
}
# Fields that decide the prompt.
PROMPT = (
    MODEL,
    Field("messages", list_of({"$ref": "#/$defs/message"}, 1), "The messages of the chat.", required=True),
    Field("tools", list_of({"$ref": "#/$defs/tool"}), "Functions that the model may call."),
    Field(
        "tool_choice",
        {"$ref": "#/$defs/tool_choice"},
        "`auto`, `none`, `required`, one function, or some of the functions.",
    ),
    Field("parallel_tool_calls", BOOLEAN, "Allow several calls in one response."),
    Field("response_format", {"$ref": "#/$defs/response_format"}, "The text is JSON, or matches a JSON schema."),
    Field("chat_template_kwargs", {"type": "object"}, "Variables of the chat template."),
    Field("add_generation_prompt", BOOLEAN, "End the prompt with the start of the assistant's message."),
    Field("parse_special", BOOLEAN, "Parse control tokens in messages; by default they are text."),
    REASONING_EFFORT,
)
CHAT = (
    *PROMPT,
    STREAM,
    Field("stream_options", {"$ref": "#/$defs/stream_options"}, "`include_usage`: end the stream with the usage."),
    Field("logprobs", BOOLEAN, "Return the log probability of each token."),
    Field("top_logprobs", {**COUNT, "maximum": 100}, "Alternatives of each token; requires `logprobs`."),
    Field("stop", TEXTS, "Texts that end the generation. An empty text has no effect."),
    Field("thinking_budget_tokens", {"type": "integer", "minimum": -1}, "Alias of `reasoning_budget_tokens`."),
    Field("id_slot", {"type": "integer", "minimum": -1}, "The slot that computes the request; -1: any."),
    Field("modalities", list_of(one_of("text"), 1), "Only `text`."),
    *ignored(
        *(
            "user",
            "metadata",
            "store",
            "safety_identifier",
            "prompt_cache_key",
            "prompt_cache_retention",
            "service_tier",
        ),
        prediction="A hint for the speed.",
    ),
)
UNSUPPORTED = {
    "audio": NO_AUDIO,
    "function_call": OLD_TOOLS,
    "functions": OLD_TOOLS,
    "verbosity": "ask for the length in a message, or set max_tokens",
    "web_search_options": NO_SEARCH,
}
NO_EFFECT = ("response_fields", "return_tokens", "n_indent", "n_probs")


@functools.cache
def chat_fields() -> RouteFields:
    """Return the fields of ``/v1/chat/completions``."""
    fields = engine_fields(*NO_EFFECT, own=CHAT)
    return RouteFields("Generate the next message of a chat.", fields, UNSUPPORTED, CHAT_DEFINITIONS)


@functools.cache
def chat_prompt_fields() -> RouteFields:
    """Return the fields of the routes that render the prompt of a chat or count its tokens."""
    return RouteFields(
        "Render the prompt of a chat, or count its tokens.", chat_fields().fields, UNSUPPORTED, CHAT_DEFINITIONS
    )
