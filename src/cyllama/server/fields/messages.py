"""Fields of Anthropic's ``/v1/messages``."""

from __future__ import annotations

import functools

from cyllama.server.fields.field import Field, RouteFields
from cyllama.server.fields.sampling import BOOLEAN, COUNT, MODEL, STREAM, TEXT, engine_fields, ignored, list_of, one_of

__all__ = ["message_fields", "message_prompt_fields"]

BLOCKS = list_of({"type": "object", "required": ["type"], "properties": {"type": TEXT}})
MESSAGE = {
    "type": "object",
    "required": ["role", "content"],
    "properties": {"role": one_of("user", "assistant", "system"), "content": {"anyOf": [TEXT, BLOCKS]}},
}
TOOL = {
    "type": "object",
    "required": ["name", "input_schema"],
    "properties": {
        "type": {"enum": ["custom", None]},
        "name": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,128}$"},
        "description": {"type": ["string", "null"]},
        "input_schema": {"type": "object"},
    },
}
CHOICE = {
    "type": "object",
    "required": ["type"],
    "properties": {
        "type": one_of("auto", "any", "tool", "none"),
        "name": TEXT,
        "disable_parallel_tool_use": BOOLEAN,
    },
    "additionalProperties": False,
}
THINKING = {
    "type": "object",
    "required": ["type"],
    "properties": {
        "type": one_of("enabled", "disabled", "adaptive"),
        "budget_tokens": {"type": "integer", "minimum": 0},
        "display": {"enum": ["summarized", "omitted", None]},
    },
    "additionalProperties": False,
}
FORMAT = {
    "type": "object",
    "required": ["type", "schema"],
    "properties": {"type": one_of("json_schema"), "schema": {"type": "object"}},
    "additionalProperties": False,
}
OUTPUT = {
    "type": "object",
    "properties": {"format": {"anyOf": [FORMAT, {"type": "null"}]}, "effort": {"type": ["string", "null"]}},
    "additionalProperties": False,
}
OWN = (
    MODEL,
    Field("messages", list_of(MESSAGE, 1), "The messages of the conversation.", required=True),
    Field("system", {"anyOf": [TEXT, BLOCKS]}, "The system message."),
    Field("max_tokens", COUNT, "The most tokens of the response; default: 4096."),
    Field("stop_sequences", list_of(TEXT), "Texts that end the generation."),
    Field("tools", list_of(TOOL), "Functions that the model may call."),
    Field("tool_choice", CHOICE, "`auto`, `any`, `none`, or one tool; `disable_parallel_tool_use`: one call."),
    Field("thinking", THINKING, "Whether the model reasons, and with how many tokens. `display` has no effect."),
    Field("output_config", OUTPUT, "`format`: a JSON schema of the text; `effort`, as `reasoning_effort` of chats."),
    Field("output_format", FORMAT, "As `format` of `output_config`."),
    Field("chat_template_kwargs", {"type": "object"}, "Variables of the chat template."),
    STREAM,
    *ignored("metadata", "service_tier", cache_control="The prompt cache finds common beginnings by itself.",
             inference_geo="The server runs where it runs."),
)  # fmt: skip
UNSUPPORTED = {
    "container": "the server runs no code",
    "context_management": "the client decides which messages it sends",
    "mcp_servers": "the server calls no tools",
    "max_completion_tokens": "use max_tokens",
    "response_format": "use output_config.format",
    "stop": "use stop_sequences",
}
NO_EFFECT = ("response_fields", "return_tokens", "n", "n_cmpl", "max_completion_tokens", "logprobs", "n_probs", "stop",
             "stream_options", "timings_per_token", "return_progress", "verbose", "continue_final_message",
             "echo", "json_schema", "post_sampling_probs", "reasoning_budget_tokens", "reasoning_budget_start_tag",
             "reasoning_budget_end_tag", "reasoning_budget_end_tags", "reasoning_budget_message")  # fmt: skip


@functools.cache
def message_fields() -> RouteFields:
    """Return the fields of ``/v1/messages``."""
    return RouteFields(
        "Generate the next message, in Anthropic's form.", engine_fields(*NO_EFFECT, own=OWN), UNSUPPORTED
    )


@functools.cache
def message_prompt_fields() -> RouteFields:
    """Return the fields of ``/v1/messages/count_tokens``."""
    return RouteFields("Count the tokens of a prompt, in Anthropic's form.", message_fields().fields, UNSUPPORTED)
