"""Routes of Ollama's protocol that generate text and compute embeddings.

Requests become calls of `LLM` in this process; streams are JSON objects, one per line.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.requests import Request
from starlette.routing import Route

from cyllama.errors import ContextFullError
from cyllama.server.config import ModelEntry, ModelTask
from cyllama.server.http.errors import http_error
from cyllama.server.http.response_stream import JSON, ResponseStream
from cyllama.server.http.task import TaskResponse
from cyllama.server.routes._ollama_model_info import THINKING_WORDS
from cyllama.server.routes._ollama_requests import (
    EMBED_FIELDS,
    EMBEDDINGS_FIELDS,
    Generation,
    check_fields,
    parse_chat,
    parse_generate,
    parse_keep_alive,
    parse_num_ctx,
    read_field,
)
from cyllama.server.routes.ollama_models import find_ollama_model, ollama_model_routes
from cyllama.server.state import ServerState

if TYPE_CHECKING:
    from cyllama.llama import LLM

__all__ = ["ollama_routes"]

Handler = Callable[[ServerState, ModelEntry, dict[str, Any], ResponseStream, threading.Event], None]
Part = dict[str, Any]


def ollama_routes(state: ServerState) -> list[Route]:
    """Return the routes below ``/api/``."""
    posts: dict[str, tuple[Handler, ModelTask]] = {
        "/api/chat": (_chat, "chat"),
        "/api/generate": (_generate, "chat"),
        "/api/embed": (_embed, "embeddings"),
        "/api/embeddings": (_embeddings, "embeddings"),
    }
    return [
        *(Route(path, partial(_post, state, *what), methods=["POST"]) for path, what in posts.items()),
        *ollama_model_routes(state),
    ]


async def _post(state: ServerState, handler: Handler, task: ModelTask, request: Request) -> TaskResponse:
    state.queues["llm"].check()
    async with state.request_body() as body:
        fields = await body.json(request)
        entry = find_ollama_model(state, fields, task)
        return state.respond("llm", partial(handler, state, entry, fields), body.keep())


# --------------------------------------------------------------------------------------------- text


def _chat(
    state: ServerState, entry: ModelEntry, fields: dict[str, Any], stream: ResponseStream, cancel: threading.Event
) -> None:
    def message(part: Part) -> Part:
        logprobs = {"logprobs": part.pop("logprobs")} if "logprobs" in part else {}
        return {"message": {"role": "assistant", "content": "", **part}, **logprobs}

    _respond(state, entry, fields, parse_chat(fields, entry, state.config), message, stream, cancel)


def _generate(
    state: ServerState, entry: ModelEntry, fields: dict[str, Any], stream: ResponseStream, cancel: threading.Event
) -> None:
    def response(part: Part) -> Part:
        return {"response": part.pop("content", ""), **part}

    _respond(state, entry, fields, parse_generate(fields, entry, state.config), response, stream, cancel)


def _respond(
    state: ServerState,
    entry: ModelEntry,
    fields: Mapping[str, Any],
    wanted: Generation,
    shape: Callable[[Part], Part],
    stream: ResponseStream,
    cancel: threading.Event,
) -> None:
    """Generate text and write it in Ollama's form; `shape` returns the keys of a part that depend on the route."""
    from cyllama.llama import check_limits

    writer = _Writer(stream, str(fields["model"]), fields.get("stream") is not False, shape)
    keep_alive = parse_keep_alive(fields)
    if wanted.is_empty and keep_alive == 0:
        if not state.lifetimes.unload(entry):
            raise http_error(409, f"model {entry.name} is in use; try again later", param="model")
        writer.end({"done_reason": "unload"})
        return
    check_limits({**wanted.options, "prompt": wanted.prompt, "messages": wanted.messages or []})
    began = time.perf_counter_ns()
    with state.use_llm(entry, cancel) as llm:
        load_duration = time.perf_counter_ns() - began
        _keep_loaded(state, entry, keep_alive)
        if wanted.is_empty:
            writer.end({"done_reason": "load", "load_duration": load_duration})
            return
        ending: Part = {"done_reason": "stop"}
        for part in _parts(llm, entry, wanted, ending, cancel):
            writer.write(part)
        total = time.perf_counter_ns() - began
        writer.end(ending | {"total_duration": total, "load_duration": load_duration})


def _keep_loaded(state: ServerState, entry: ModelEntry, keep_alive: float | None) -> None:
    if keep_alive is not None:
        state.lifetimes.set_idle_seconds(entry, None if math.isinf(keep_alive) else keep_alive)


class _Writer:
    """Write parts as lines, or join them to one JSON object."""

    def __init__(self, stream: ResponseStream, model: str, streams: bool, shape: Callable[[Part], Part]) -> None:
        self._stream, self._model, self._streams, self._shape = stream, model, streams, shape
        self._started = False
        self._joined: Part = {}

    def write(self, part: Part) -> None:
        """Write or keep a part of the text; values of the same key are joined."""
        if self._streams:
            self._line(self._shape(part) | {"done": False})
            return
        for name, value in part.items():
            self._joined[name] = self._joined[name] + value if name in self._joined else value

    def end(self, ending: Part) -> None:
        """Write the last object."""
        last = self._shape(self._joined) | {"done": True} | ending
        if self._streams:
            self._line(last)
        else:
            self._stream.send(200, JSON, self._encoded(last))

    def _line(self, data: Part) -> None:
        if not self._started:
            self._stream.start_lines()
            self._started = True
        self._stream.write(self._encoded(data) + b"\n")

    def _encoded(self, data: Part) -> bytes:
        created = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        return json.dumps({"model": self._model, "created_at": created, **data}).encode()


def _parts(llm: LLM, entry: ModelEntry, wanted: Generation, ending: Part, cancel: threading.Event) -> Iterator[Part]:
    """Yield ``content``, ``thinking``, ``tool_calls`` and ``logprobs`` of a text; set the counts of `ending`."""
    options: dict[str, Any] = dict(wanted.options)
    if wanted.suffix:
        _limit_context(llm, wanted, options, len(llm.tokenize(wanted.prompt)) + len(llm.tokenize(wanted.suffix)))
        infill = llm.infill(wanted.prompt, wanted.suffix, cancel=cancel, **options)
        yield {"content": infill.text}
        _set_counts(ending, infill.timings, "length" if infill.stop_type == "limit" else "stop")
        return
    if wanted.messages is None:
        _limit_context(llm, wanted, options, len(llm.tokenize(wanted.prompt, add_special=True)))
        with llm.complete(wanted.prompt, stream=True, cancel=cancel, **options) as texts:
            for text in texts:
                if text.choices and text.choices[0].text:
                    yield {"content": text.choices[0].text}
                _set_counts(ending, text.get("timings"), text.finish_reason)
        return
    options |= _thinking_options(llm, entry, wanted.think)
    if wanted.num_ctx is not None:
        _limit_context(llm, wanted, options, llm.count_tokens(wanted.messages, **options))
    calls: dict[int, dict[str, str]] = {}
    with llm.chat(wanted.messages, stream=True, cancel=cancel, **options) as chunks:
        for chunk in chunks:
            if chunk.choices and (part := _chat_part(chunk.choices[0].to_dict(), calls)):
                yield part
            _set_counts(ending, chunk.get("timings"), chunk.finish_reason)
            if chunk.choices and chunk.choices[0].warning:
                ending["warning"] = chunk.choices[0].warning
    if calls:
        yield {"tool_calls": [_tool_call(index, call) for index, call in sorted(calls.items())]}


def _chat_part(choice: Mapping[str, Any], calls: dict[int, dict[str, str]]) -> Part:
    """Return the text of a chunk, and add its parts of tool calls to `calls`."""
    delta = choice["delta"]
    names = {"content": "content", "thinking": "reasoning_content"}
    part: Part = {name: delta[key] for name, key in names.items() if delta.get(key)}
    for piece in delta.get("tool_calls") or ():
        function = piece.get("function", {})
        call = calls.setdefault(piece["index"], {"id": "", "name": "", "arguments": ""})
        call["id"] = piece.get("id") or call["id"]
        call["name"] += function.get("name") or ""
        call["arguments"] += function.get("arguments") or ""
    if logprobs := (choice.get("logprobs") or {}).get("content"):
        part["logprobs"] = logprobs
    return part


def _tool_call(index: int, call: Mapping[str, str]) -> dict[str, Any]:
    """Return a tool call in Ollama's form, whose arguments are an object."""
    try:
        arguments = json.loads(call["arguments"] or "{}")
    except ValueError:  # the response was cut off
        arguments = {}
    return {"id": call["id"], "function": {"index": index, "name": call["name"], "arguments": arguments}}


def _set_counts(ending: Part, timings: Any, finish_reason: str | None) -> None:
    if finish_reason:
        ending["done_reason"] = "length" if finish_reason == "length" else "stop"
    if timings:
        ending |= {
            "prompt_eval_count": timings["cache_n"] + timings["prompt_n"],
            "prompt_eval_duration": round(timings["prompt_ms"] * 1e6),
            "eval_count": timings["predicted_n"],
            "eval_duration": round(timings["predicted_ms"] * 1e6),
        }


def _thinking_options(llm: LLM, entry: ModelEntry, think: bool | str | None) -> dict[str, Any]:
    if think is None:
        return {}
    if isinstance(think, str):
        if not llm.supports("reasoning_effort"):
            raise http_error(400, f"think is {think!r:.100}, but {entry.name} has no levels of thinking", param="think")
        return {"reasoning_effort": think}
    if think and not any(word in llm.properties.chat_template for word in THINKING_WORDS):
        raise http_error(400, f"think is true, but {entry.name} does not support thinking", param="think")
    return {"chat_template_kwargs": {"enable_thinking": think}}


def _limit_context(llm: LLM, wanted: Generation, options: dict[str, Any], prompt: int) -> None:
    """Limit the response to the tokens that ``num_ctx`` leaves."""
    if wanted.num_ctx is None:
        return
    left = _checked_num_ctx(llm, wanted.num_ctx) - prompt
    if left < 1:
        raise ContextFullError(f"the prompt has {prompt} tokens, options.num_ctx is {wanted.num_ctx}", engine="llama")
    most = options.get("max_tokens", -1)
    options["max_tokens"] = left if not isinstance(most, int) or most < 0 else min(most, left)


def _checked_num_ctx(llm: LLM, num_ctx: int) -> int:
    most = llm.properties.default_generation_settings.n_ctx
    if num_ctx > most:
        message = f"options.num_ctx is {num_ctx}, expected at most {most}; set n_ctx in the server's configuration"
        raise http_error(400, message, param="options.num_ctx")
    return num_ctx


# --------------------------------------------------------------------------------------- embeddings


def _embed(
    state: ServerState, entry: ModelEntry, fields: dict[str, Any], stream: ResponseStream, cancel: threading.Event
) -> None:
    check_fields(fields, EMBED_FIELDS)
    given = fields.get("input")
    texts = ([given] if given else []) if isinstance(given, str) else given
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise http_error(400, f"input is {given!r:.200}, expected a string or a list of strings", param="input")
    truncate = read_field(fields, "truncate", bool, True)
    dimensions = read_field(fields, "dimensions", int)
    if dimensions is not None and dimensions < 1:
        raise http_error(400, f"dimensions is {dimensions}, expected 1 or more", param="dimensions")
    began = time.perf_counter_ns()
    vectors, count, load_duration = _vectors(state, entry, fields, texts, truncate, True, cancel)
    if dimensions is not None and texts:
        if dimensions > vectors.shape[1]:
            message = f"dimensions is {dimensions}, expected at most {vectors.shape[1]}"
            raise http_error(400, message, param="dimensions")
        vectors = vectors[:, :dimensions]
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    body = {
        "model": fields["model"],
        "embeddings": vectors.tolist(),
        "total_duration": time.perf_counter_ns() - began,
        "load_duration": load_duration,
        "prompt_eval_count": count,
    }
    stream.send(200, JSON, json.dumps(body).encode())


def _embeddings(
    state: ServerState, entry: ModelEntry, fields: dict[str, Any], stream: ResponseStream, cancel: threading.Event
) -> None:
    check_fields(fields, EMBEDDINGS_FIELDS)
    prompt = read_field(fields, "prompt", str, "")
    vectors, _, _ = _vectors(state, entry, fields, [prompt] if prompt else [], True, False, cancel)
    stream.send(200, JSON, json.dumps({"embedding": vectors[0].tolist() if prompt else []}).encode())


def _vectors(
    state: ServerState,
    entry: ModelEntry,
    fields: Mapping[str, Any],
    texts: list[str],
    truncate: bool,
    normalize: bool,
    cancel: threading.Event,
) -> tuple[np.ndarray[Any, np.dtype[np.float32]], int, int]:
    """Return the vectors, the number of tokens, and the nanoseconds of loading."""
    from cyllama.llama import check_limits

    check_limits({"input": texts})
    check_fields(read_field(fields, "options", dict, {}), ("num_ctx",), "options of embeddings: ")
    num_ctx, keep_alive = parse_num_ctx(fields), parse_keep_alive(fields)
    began = time.perf_counter_ns()
    with state.use_llm(entry, cancel) as llm:
        load_duration = time.perf_counter_ns() - began
        _keep_loaded(state, entry, keep_alive)
        limit = _input_limit(llm, num_ctx)
        inputs: list[str | list[int]] = []
        count = 0
        for i, text in enumerate(texts):
            tokens = llm.tokenize(text, add_special=True)
            if len(tokens) > limit:
                if not truncate:
                    message = f"input[{i}] has {len(tokens)} tokens, expected at most {limit}"
                    raise ContextFullError(message, engine="llama")
                tokens = _truncated(llm, text, tokens, limit)
                inputs.append(tokens)
            else:
                inputs.append(text)
            count += len(tokens)
        found = llm.embed(inputs, normalize=normalize, cancel=cancel) if inputs else np.zeros((0, 0), np.float32)
    if isinstance(found, list):
        raise http_error(400, f"{entry.name} computes a vector for each token; load it with another pooling_type")
    return found, count, load_duration


def _input_limit(llm: LLM, num_ctx: int | None) -> int:
    """Return the most tokens of a text: those of the context of a slot."""
    if num_ctx is not None:
        return _checked_num_ctx(llm, num_ctx)
    return llm.properties.default_generation_settings.n_ctx


def _truncated(llm: LLM, text: str, tokens: list[int], limit: int) -> list[int]:
    """Return the first tokens of a text, and the special tokens at its end."""
    plain = llm.tokenize(text, add_special=False)
    special = len(tokens) - len(plain)
    head = next((n for n in range(special + 1) if tokens[n : n + len(plain)] == plain), 0)
    tail = tokens[head + len(plain) :]
    return tokens[: max(1, limit - len(tail))] + tail
