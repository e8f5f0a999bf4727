"""`LLM` returns what the native llama-server returns for the same request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from language.conftest import CHAT_MODEL, TEMPLATES
from language.native_server import NativeServer, native_server

from cyllama import LLM, get_threads, models
from cyllama.errors import CyllamaError

TEMPLATE = TEMPLATES / "Qwen-Qwen2.5-7B-Instruct.jinja"
USER = [{"role": "user", "content": "What is the capital of France?"}]
TALK = [
    {"role": "system", "content": "You are brief."},
    {"role": "user", "content": "Name a colour."},
    {"role": "assistant", "content": "Blue."},
    {"role": "user", "content": "Another one."},
]
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tell the weather.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"enum": ["C", "F"]}},
            "required": ["city", "unit"],
        },
    },
}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "people": {"type": "integer"}},
    "required": ["city", "people"],
}
FORM = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
CHATS: dict[str, dict[str, Any]] = {
    "greedy": {"messages": USER, "temperature": 0},
    "several turns": {"messages": TALK, "temperature": 0},
    "seed": {"messages": USER, "temperature": 1.2, "seed": 11},
    "all samplers": {
        "messages": USER, "temperature": 0.9, "seed": 3, "top_k": 30, "top_p": 0.9, "min_p": 0.02, "typical_p": 0.95,
        "repeat_penalty": 1.1, "presence_penalty": 0.2, "frequency_penalty": 0.1, "dry_multiplier": 0.5,
        "xtc_probability": 0.2, "xtc_threshold": 0.1, "dynatemp_range": 0.2, "top_n_sigma": 2.0,
    },
    "mirostat": {"messages": USER, "mirostat": 2, "mirostat_tau": 4.0, "seed": 5},
    "sampler order": {"messages": USER, "samplers": ["temperature", "top_k"], "top_k": 5, "seed": 9, "temperature": 1.5},
    "stop": {"messages": TALK, "temperature": 0, "stop": [".", "e"]},
    "bias": {"messages": USER, "temperature": 0, "logit_bias": {"7042": -100}},
    "logprobs": {"messages": USER, "temperature": 0, "logprobs": True, "top_logprobs": 3},
    "several choices": {"messages": USER, "n": 2, "temperature": 1.0, "seed": 4},
    "grammar": {"messages": USER, "grammar": 'root ::= "Rome" | "Paris"', "temperature": 0},
    "schema": {"messages": USER, "response_format": FORM, "temperature": 0},
    "any object": {"messages": USER, "response_format": {"type": "json_object"}, "temperature": 0},
    "optional tool": {"messages": USER, "tools": [TOOL], "temperature": 0},
    "required tool": {"messages": USER, "tools": [TOOL], "tool_choice": "required", "temperature": 0},
    "no tool": {"messages": USER, "tools": [TOOL], "tool_choice": "none", "temperature": 0},
    "several calls": {
        "messages": USER, "tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": True, "temperature": 0.7,
        "seed": 2,
    },
    "continued message": {"messages": [*USER, {"role": "assistant", "content": "The capital"}], "temperature": 0},
    "no tokens": {"messages": USER, "max_tokens": 0},
}  # fmt: skip
COMPLETIONS: dict[str, dict[str, Any]] = {
    "text": {"prompt": "Once upon a time", "temperature": 0},
    "tokens": {"prompt": [504, 2365, 6354, 16438], "temperature": 0},
    "logprobs": {"prompt": "The sky is", "logprobs": 2, "temperature": 0},
    "ignored end": {"prompt": "Bye.", "ignore_eos": True, "seed": 8},
    "several": {"prompt": "The", "n": 2, "seed": 8},
}
OTHERS: list[tuple[str, str, dict[str, Any]]] = [
    ("tokenize", "/tokenize", {"content": "Hello, wörld <|im_end|>", "with_pieces": True}),
    ("detokenize", "/detokenize", {"tokens": [504, 2365, 6354]}),
    ("apply_template", "/apply-template", {"messages": TALK}),
    ("apply_template", "/apply-template", {"messages": USER, "tools": [TOOL]}),
    ("chat_tokens", "/v1/chat/completions/input_tokens", {"messages": TALK}),
]
WRONG: list[dict[str, Any]] = [
    {"messages": USER, "temperature": "hot"},
    {"messages": USER, "grammar": "root ::= ((("},
    {"messages": USER, "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "strange"}}}},
    {"messages": [{"role": "user", "content": "word " * 3000}]},
    {"messages": USER, "tools": [TOOL], "tool_choice": "perhaps"},
    {"messages": USER, "n": 99},
]
CHANGING = ("id", "created", "timings", "system_fingerprint", "model", "id_slot")  # the last one is ours


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[LLM, NativeServer]]:
    """An LLM and a server with the same settings and no prompt cache."""
    options = (
        "--ctx-size",
        2048,
        "--parallel",
        2,
        "--kv-unified",
        "--threads",
        get_threads(),
        "--chat-template-file",
        TEMPLATE,
    )
    template = TEMPLATE.read_text()
    with native_server("--model", models.get(CHAT_MODEL), *options, "--no-cache-prompt") as server:
        with LLM(
            CHAT_MODEL, n_ctx=2048, n_parallel=2, chat_template=template, options={"no-cache-prompt": True}
        ) as llm:
            yield llm, server


def fixed(data: Any) -> Any:
    """Return data without the fields that differ between calls."""
    if isinstance(data, dict):
        kept = {key: fixed(value) for key, value in data.items() if key not in CHANGING}
        return kept | ({"id": bool(data["id"])} if "function" in data else {})
    return [fixed(item) for item in data] if isinstance(data, list) else data


def with_all_choices(data: dict[str, Any]) -> dict[str, Any]:
    """Return a response without the tokens of several choices: upstream counts those of one."""
    if len(data["choices"]) > 1:
        data["usage"] = {"prompt_tokens": data["usage"]["prompt_tokens"]}
    return data


@pytest.mark.parametrize("name", CHATS)
def test_chats_match_llama_server(pair: tuple[LLM, NativeServer], name: str) -> None:
    llm, server = pair
    body = {"max_tokens": 40, **CHATS[name]}
    status, expected = server.post("/v1/chat/completions", body)
    assert status == 200, expected
    ours = llm.chat(body["messages"], **{key: value for key, value in body.items() if key != "messages"}).to_dict()
    assert fixed(with_all_choices(ours)) == fixed(with_all_choices(expected))
    if name == "required tool":
        assert ours["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "get_weather"


@pytest.mark.parametrize("name", ["greedy", "logprobs", "required tool", "schema", "several turns"])
def test_streams_match_llama_server(pair: tuple[LLM, NativeServer], name: str) -> None:
    """Texts and calls are equal; their split into chunks may differ."""
    llm, server = pair
    body = {"max_tokens": 40, "stream_options": {"include_usage": True}, **CHATS[name]}
    expected = server.stream("/v1/chat/completions", body)
    ours = [part.to_dict() for part in llm.chat(body.pop("messages"), stream=True, **body)]
    assert joined(ours) == joined(expected)
    assert fixed(ours[-1]["usage"]) == fixed(expected[-1]["usage"])


def joined(parts: list[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"text": "", "calls": "", "reason": None, "tokens": []}
    for part in parts:
        for choice in part["choices"]:
            delta = choice["delta"]
            found["text"] += delta.get("content") or ""
            for call in delta.get("tool_calls") or ():
                found["calls"] += (call["function"].get("name") or "") + (call["function"].get("arguments") or "")
            found["reason"] = choice["finish_reason"] or found["reason"]
            found["tokens"] += [token["token"] for token in (choice.get("logprobs") or {}).get("content") or ()]
    return found


@pytest.mark.parametrize("name", COMPLETIONS)
def test_completions_match_llama_server(pair: tuple[LLM, NativeServer], name: str) -> None:
    llm, server = pair
    body = {"max_tokens": 24, **COMPLETIONS[name]}
    status, expected = server.post("/v1/completions", body)
    assert status == 200, expected
    assert fixed(with_all_choices(llm.complete(**body).to_dict())) == fixed(with_all_choices(expected))


@pytest.mark.parametrize(("route", "path", "body"), OTHERS)
def test_other_routes_match_llama_server(
    pair: tuple[LLM, NativeServer], route: str, path: str, body: dict[str, Any]
) -> None:
    llm, server = pair
    status, expected = server.post(path, body)
    assert status == 200 and json.dumps(llm._json(route, body, None)) == json.dumps(expected)


@pytest.mark.parametrize("body", WRONG, ids=range(len(WRONG)))
def test_errors_match_llama_server(pair: tuple[LLM, NativeServer], body: dict[str, Any]) -> None:
    llm, server = pair
    status, _ = server.post("/v1/chat/completions", body)
    assert status >= 400
    with pytest.raises((ValueError, TypeError, CyllamaError)):
        llm.chat(**body)
