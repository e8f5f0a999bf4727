"""Requests of Ollama's protocol: their fields, options, messages and durations, as arguments of `LLM`."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cyllama.media.encoded import decode_base64
from cyllama.server.config import MAX_IDLE_SECONDS, ModelEntry, ServerConfig
from cyllama.server.http.errors import http_error
from cyllama.server.image_jobs import check_image

__all__ = [
    "CHAT_FIELDS",
    "EMBEDDINGS_FIELDS",
    "EMBED_FIELDS",
    "GENERATE_FIELDS",
    "LOAD_OPTIONS",
    "SAMPLING_OPTIONS",
    "UNSUPPORTED_OPTIONS",
    "Generation",
    "check_fields",
    "parse_chat",
    "parse_generate",
    "parse_keep_alive",
    "parse_num_ctx",
    "read_field",
]

COMMON = (
    "model",
    "stream",
    "format",
    "keep_alive",
    "options",
    "think",
    "shift",
    "truncate",
    "logprobs",
    "top_logprobs",
)
CHAT_FIELDS = (*COMMON, "messages", "tools")
GENERATE_FIELDS = (*COMMON, "prompt", "suffix", "system", "template", "context", "raw", "images")
EMBED_FIELDS = ("model", "input", "truncate", "dimensions", "keep_alive", "options")
EMBEDDINGS_FIELDS = ("model", "prompt", "keep_alive", "options")

SAMPLING_OPTIONS = {
    "num_predict": "max_tokens",
    "num_keep": "n_keep",
    "seed": "seed",
    "stop": "stop",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "repeat_last_n": "repeat_last_n",
    "repeat_penalty": "repeat_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "mirostat": "mirostat",
    "mirostat_tau": "mirostat_tau",
    "mirostat_eta": "mirostat_eta",
}
"""Ollama's options and those of `LLM`'s requests."""

LOAD_OPTIONS = {
    "num_batch": "n_batch",
    "num_gpu": "n_gpu_layers",
    "main_gpu": "main_gpu",
    "num_thread": "n_threads",
    "use_mmap": "load_mode",
    "use_mlock": "load_mode",
    "draft_num_predict": "draft_max",
    "numa": 'options = { "numa" = ... }',
    "embedding_only": "embedding",
}
"""Ollama's options that need another model in memory, and the keys of the configuration that set them."""

UNSUPPORTED_OPTIONS = ("f16_kv", "logits_all", "low_vram", "penalize_newline", "tfs_z", "vocab_only")
"""Options of Ollama that the engine does not have."""

ROLES = ("system", "user", "assistant", "tool")
MESSAGE_FIELDS = ("role", "content", "thinking", "images", "tool_calls", "tool_name", "tool_call_id")
DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
MAX_TOP_LOGPROBS = 20
KINDS: dict[type, str] = {str: "a string", bool: "true or false", int: "an integer", list: "a list", dict: "an object"}


@dataclass(kw_only=True, frozen=True)
class Generation:
    """A request for text.

    Attributes
    ----------
    messages : list of dict or None
        The messages of a chat, for `LLM.chat`; None: `prompt` is a text to continue.
    prompt, suffix : str
        A text to continue, and the text after it.
    options : dict
        Options of `LLM`'s requests.
    num_ctx : int or None
        The most tokens of the prompt and the response.
    think : bool, str or None
        Whether the model thinks first, or how much.
    is_empty : bool
        There is nothing to generate: the request only loads or unloads the model.
    """

    messages: list[dict[str, Any]] | None = None
    prompt: str = ""
    suffix: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    num_ctx: int | None = None
    think: bool | str | None = None
    is_empty: bool = False


def check_fields(fields: Mapping[str, Any], known: Iterable[str], where: str = "") -> None:
    """Reject unknown fields.

    Raises
    ------
    HTTPException
    """
    names = tuple(known)
    for name in fields:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected some of {', '.join(names)}"
            raise http_error(400, f"{where}unknown field {name!r:.100}; {hint}", param=name)


def read_field(fields: Mapping[str, Any], name: str, kind: type, default: Any = None) -> Any:
    """Return a field of a type; `default` if it is missing or null.

    Raises
    ------
    HTTPException
    """
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise http_error(400, f"{name} is {value!r:.200}, expected {KINDS[kind]}", param=name)
    return value


def parse_chat(fields: Mapping[str, Any], entry: ModelEntry, config: ServerConfig) -> Generation:
    """Check the fields of ``/api/chat`` and convert them.

    Raises
    ------
    HTTPException, ValueError
    """
    check_fields(fields, CHAT_FIELDS)
    options = _common_options(fields, entry)
    tools = read_field(fields, "tools", list)
    if tools:
        options["tools"] = tools
    messages = read_field(fields, "messages", list, [])
    return Generation(
        messages=_messages(messages, config),
        options=options | _response_format(fields),
        num_ctx=parse_num_ctx(fields),
        think=_think(fields),
        is_empty=not messages,
    )


def parse_generate(fields: Mapping[str, Any], entry: ModelEntry, config: ServerConfig) -> Generation:
    """Check the fields of ``/api/generate`` and convert them.

    Raises
    ------
    HTTPException, ValueError
    """
    check_fields(fields, GENERATE_FIELDS)
    for name, kind in (("template", str), ("context", list)):
        if read_field(fields, name, kind):
            hint = {"template": "set chat_template in the configuration", "context": "send messages to /api/chat"}[name]
            raise http_error(400, f"{name} is not supported; {hint}", param=name)
    prompt, suffix = read_field(fields, "prompt", str, ""), read_field(fields, "suffix", str, "")
    images = read_field(fields, "images", list)
    system = read_field(fields, "system", str)
    raw = read_field(fields, "raw", bool, False)
    common: dict[str, Any] = {"num_ctx": parse_num_ctx(fields), "is_empty": not (prompt or suffix or images)}
    options = _common_options(fields, entry)
    if raw or suffix:
        mode = "raw" if raw else "suffix"
        for name in ("system", "images", "think", "logprobs", *(["format"] if suffix else [])):
            if fields.get(name):
                raise http_error(400, f"{name} and {mode} exclude each other", param=name)
        schema = _schema(fields)
        return Generation(
            prompt=prompt,
            suffix=suffix,
            options=options | ({} if schema is None else {"json_schema": schema or {"type": "object"}}),
            **common,
        )
    user = {"role": "user", "content": prompt, "images": images}
    messages = [{"role": "system", "content": system}, user] if system else [user]
    found = _messages(messages, config)
    return Generation(messages=found, options=options | _response_format(fields), think=_think(fields), **common)


def _common_options(fields: Mapping[str, Any], entry: ModelEntry) -> dict[str, Any]:
    """Return the options for `LLM` of the fields that all requests for text have."""
    read_field(fields, "stream", bool)
    shift, shifts = read_field(fields, "shift", bool), bool(entry.settings.get("ctx_shift"))
    if shift is not None and shift != shifts:
        raise http_error(400, f"shift is {shift}, but the model was loaded with ctx_shift = {shifts}", param="shift")
    if read_field(fields, "truncate", bool):
        raise http_error(400, "truncate is not supported: a prompt that is too long is an error", param="truncate")
    options = _sampling_options(read_field(fields, "options", dict, {}))
    top = read_field(fields, "top_logprobs", int, 0)
    if not 0 <= top <= MAX_TOP_LOGPROBS:
        raise http_error(400, f"top_logprobs is {top}, expected 0 to {MAX_TOP_LOGPROBS}", param="top_logprobs")
    if read_field(fields, "logprobs", bool):
        options |= {"logprobs": True, "top_logprobs": top}
    elif top:
        raise http_error(400, f"top_logprobs is {top}, expected logprobs = true", param="top_logprobs")
    return options


def _sampling_options(given: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for name, value in given.items():
        if name in LOAD_OPTIONS:
            message = f"is an option of loading; set {LOAD_OPTIONS[name]} in the server's configuration"
            raise http_error(400, f"options.{name} {message}", param=f"options.{name}")
        if name in UNSUPPORTED_OPTIONS:
            raise http_error(400, f"options.{name} is not supported by the engine", param=f"options.{name}")
        if name != "num_ctx":
            check_fields({name: value}, (*SAMPLING_OPTIONS, "num_ctx"), "options: ")
            found[name] = value
    predict = found.get("num_predict")
    if isinstance(predict, int) and predict < -1:
        raise http_error(400, f"options.num_predict is {predict}, expected -1 (no limit) or more", param="num_predict")
    return {SAMPLING_OPTIONS[name]: value for name, value in found.items() if value is not None}


def parse_num_ctx(fields: Mapping[str, Any]) -> int | None:
    """Return the option ``num_ctx``; None if it is missing.

    Raises
    ------
    HTTPException
    """
    found: int | None = read_field(read_field(fields, "options", dict, {}), "num_ctx", int)
    if found is not None and found < 1:
        raise http_error(400, f"options.num_ctx is {found}, expected 1 or more", param="options.num_ctx")
    return found


def _think(fields: Mapping[str, Any]) -> bool | str | None:
    value: Any = fields.get("think")
    if value is None or isinstance(value, bool) or (isinstance(value, str) and value):
        found: bool | str | None = value
        return found
    raise http_error(400, f"think is {value!r:.100}, expected true, false or a level such as 'low'", param="think")


def _schema(fields: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the schema of ``format``: empty for any JSON, None for text."""
    value = fields.get("format")
    if value is None or value == "":
        return None
    if value == "json":
        return {}
    if isinstance(value, dict):
        return value
    raise http_error(400, f"format is {value!r:.100}, expected 'json' or a JSON schema", param="format")


def _response_format(fields: Mapping[str, Any]) -> dict[str, Any]:
    schema = _schema(fields)
    if schema is None:
        return {}
    if not schema:
        return {"response_format": {"type": "json_object"}}
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}}


def _messages(messages: list[Any], config: ServerConfig) -> list[dict[str, Any]]:
    """Return messages in the form of `LLM.chat`."""
    found: list[dict[str, Any]] = []
    names: dict[str, str] = {}  # of tools, by the ids of their calls that have no result yet
    for i, message in enumerate(messages):
        where = f"messages[{i}]"
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise http_error(400, f"{where} is {message!r:.200}, expected a role of {', '.join(ROLES)}", param=where)
        check_fields(message, MESSAGE_FIELDS, f"{where}: ")
        item: dict[str, Any] = {"role": message["role"], "content": read_field(message, "content", str, "")}
        images = read_field(message, "images", list)
        if images:
            text = {"type": "text", "text": item["content"]}
            item["content"] = [*(_image(image, f"{where}.images[{n}]", config) for n, image in enumerate(images)), text]
        if thinking := read_field(message, "thinking", str):
            item["reasoning_content"] = thinking
        if calls := read_field(message, "tool_calls", list):
            item["tool_calls"] = [_tool_call(call, f"call_{i}_{n}", where) for n, call in enumerate(calls)]
            names |= {call["id"]: call["function"]["name"] for call in item["tool_calls"]}
        if item["role"] == "tool":
            item |= _tool_result(message, names)
        found.append(item)
    return found


def _image(value: Any, where: str, config: ServerConfig) -> dict[str, Any]:
    if not isinstance(value, str):
        raise http_error(400, f"{where} is {value!r:.100}, expected base64", param=where)
    data = decode_base64(value, where, max_bytes=config.limits.body)
    check_image(data, config.limits.received_pixels, where)
    return {"type": "image", "image": data}


def _tool_call(call: Any, default_id: str, where: str) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    arguments = function.get("arguments") if isinstance(function, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not isinstance(arguments, dict):
        message = f"{where}: a tool call is {call!r:.200}, expected a function with name and arguments"
        raise http_error(400, message, param=where)
    described = {"name": function["name"], "arguments": json.dumps(arguments, ensure_ascii=False)}
    return {"id": read_field(call, "id", str, default_id), "type": "function", "function": described}


def _tool_result(message: Mapping[str, Any], names: dict[str, str]) -> dict[str, str]:
    """Return the name of the tool and the id of its call: the given one, or the oldest one of this name."""
    name, id_ = read_field(message, "tool_name", str), read_field(message, "tool_call_id", str)
    if id_ is None:
        id_ = next((key for key, known in names.items() if name in (None, known)), None)
    name = name or names.get(id_ or "")
    names.pop(id_ or "", None)
    return {key: value for key, value in (("name", name), ("tool_call_id", id_)) if value}


def parse_keep_alive(fields: Mapping[str, Any]) -> float | None:
    """Return the seconds of ``keep_alive``, or infinity for a negative duration; None if it is missing.

    Raises
    ------
    HTTPException
    """
    value = fields.get("keep_alive")
    seconds = _seconds(value)
    if value is not None and (seconds is None or MAX_IDLE_SECONDS < seconds < float("inf")):
        expected = f"seconds, or a duration such as '5m', up to {MAX_IDLE_SECONDS:,} seconds"
        raise http_error(400, f"keep_alive is {value!r:.100}, expected {expected}", param="keep_alive")
    return seconds


def _seconds(value: Any) -> float | None:
    if isinstance(value, str):
        text = value.strip().removeprefix("-")
        try:
            found = float(value)
        except ValueError:
            if not text or not re.fullmatch(f"(?:{DURATION.pattern})+", text):
                return None
            found = sum(float(number) * UNITS[unit] for number, unit in DURATION.findall(text))
            found = -found if value.strip().startswith("-") else found
    elif isinstance(value, int | float) and not isinstance(value, bool):
        found = float(min(value, 2 * MAX_IDLE_SECONDS))  # an integer of JSON can be too large for a float
    else:
        return None
    if found != found:  # NaN
        return None
    return float("inf") if found < 0 else found
