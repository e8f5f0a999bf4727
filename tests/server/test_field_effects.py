"""Every field of generation changes the response, on every route."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from server.running import Server, running_server

from cyllama.server.routes._text_table import text_table

LENGTH = "max_tokens"  # or the route's name for it
ROUTES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hello"}]},
    "/v1/completions": {"prompt": "Hello"},
    "/completion": {"prompt": "Hello"},
    "/v1/responses": {"input": "Hello"},
    "/v1/messages": {"messages": [{"role": "user", "content": "Hello"}]},
}
RANDOM = {"temperature": 1.0, "seed": 7, "ignore_eos": True}
LOOP = {"temperature": 0, "grammar": "root ::= [ab]+", "ignore_eos": True}  # repeats itself
LINES = {**LOOP, "grammar": 'root ::= (" "? "a\\n")+'}
DRY = {**LOOP, "dry_multiplier": 5.0, "dry_allowed_length": 1, "dry_base": 2.0}
# Reasoning begins with "a" and ends with "b", two tokens later at the latest.
BUDGET = {
    **LOOP,
    "model": "smol",
    "logit_bias": {"a": 100},
    "reasoning_budget_start_tag": "a",
    "reasoning_budget_end_tag": "b",
    "reasoning_budget_tokens": 2,
}
NEAR = {**RANDOM, "top_k": 4, "logit_bias": [[500, 100.0], [501, 98.0], [502, 97.0], [503, 96.0]]}
CONFIG = '''
[models.tiny]
model = "tiny-random-llama"
n_ctx = 256
n_parallel = 2
n_threads = 1
ctx_shift = true
options = { "no-kv-unified" = true }
chat_template = """{{ reasoning_effort }}{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}\
{% if add_generation_prompt %}assistant:{% endif %}"""

# its vocabulary has the same token for "a" at the start of a text and within one
[models.smol]
model = "smollm2-135m-instruct"
n_ctx = 256
n_parallel = 1
'''

YES = {"type": "object", "properties": {"yes": {"const": True}}, "required": ["yes"]}
CONTINUED = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "I am"}]
LONG = {**RANDOM, LENGTH: 300}  # more than the context

# field: what it is added to, and its value
CASES: dict[str, tuple[Mapping[str, Any], Any]] = {
    "add_generation_prompt": (RANDOM, False),
    "adaptive_target": ({**RANDOM, "samplers": ["adaptive_p"]}, 0.9),
    "adaptive_decay": ({**NEAR, "samplers": ["top_k", "adaptive_p"], "adaptive_target": 0.5}, 0.0),
    "chat_template_kwargs": (RANDOM, {"reasoning_effort": "low"}),
    "continue_final_message": (
        {**RANDOM, "messages": CONTINUED[:1], "add_generation_prompt": False},
        True,
    ),
    "dry_multiplier": (LOOP, 5.0),
    "dry_allowed_length": (DRY, 8),
    "dry_base": ({**DRY, "dry_multiplier": 0.01}, 30.0),
    "dry_penalty_last_n": (DRY, 1),
    "dry_sequence_breakers": (DRY, ["a", "b"]),
    "dynatemp_range": (RANDOM, 1.0),
    "dynatemp_exponent": ({**NEAR, "dynatemp_range": 1.0}, 9.0),
    "frequency_penalty": (LOOP, 2.0),
    "grammar": (RANDOM, 'root ::= "yes"'),
    "ignore_eos": ({"temperature": 0, "logit_bias": [[2, 100]]}, True),
    "instructions": (RANDOM, "Be brief."),
    "json_schema": (RANDOM, YES),
    "logit_bias": (RANDOM, [[500, 100.0]]),
    "max_completion_tokens": ({**RANDOM, "max_tokens": None, "max_completion_tokens": 9}, 3),
    "max_output_tokens": (RANDOM, 3),
    "max_tokens": (RANDOM, 3),
    "min_keep": ({**RANDOM, "top_k": 0, "top_p": 0.00001, "min_p": 0.0}, 500),
    "min_p": ({**RANDOM, "top_k": 0, "top_p": 1.0}, 1.0),
    "mirostat": (RANDOM, 2),
    "mirostat_tau": ({**RANDOM, "mirostat": 2}, 0.1),
    "mirostat_eta": ({**RANDOM, "mirostat": 2, "mirostat_tau": 1.0}, 1.0),
    "n_discard": (LONG, 3),
    "n_indent": (LINES, 1),
    "n_keep": (LONG, 20),
    "n_predict": ({**RANDOM, "max_tokens": None, "n_predict": 9}, 3),
    "output_config": (RANDOM, {"effort": "high"}),
    "output_format": (RANDOM, {"type": "json_schema", "schema": YES}),
    "presence_penalty": (LOOP, 2.0),
    "repeat_penalty": (LOOP, 5.0),
    "repeat_last_n": ({**LOOP, "repeat_penalty": 5.0}, 1),
    "reasoning": (RANDOM, {"effort": "high"}),
    "reasoning_effort": (RANDOM, "high"),
    "reasoning_budget_tokens": (BUDGET, 6),
    "reasoning_budget_start_tag": (BUDGET, "never"),
    "reasoning_budget_end_tag": (BUDGET, "bbbb"),
    "reasoning_budget_end_tags": ({**BUDGET, "reasoning_budget_end_tag": None}, ["bbbb"]),
    "reasoning_budget_message": (BUDGET, "bababa"),
    "response_format": (RANDOM, {"type": "json_object"}),
    "samplers": ({**RANDOM, "top_k": 1}, ["temperature"]),
    "seed": (RANDOM, 8),
    "stop": (LOOP, ["bbb"]),
    "stop_sequences": (LOOP, ["bbb"]),
    "system": (RANDOM, "Be brief."),
    "text": (RANDOM, {"format": {"type": "json_schema", "name": "yes", "schema": YES}}),
    "thinking_budget_tokens": ({**BUDGET, "reasoning_budget_tokens": None}, 2),
    "t_max_predict_ms": (LINES, 1),
    "temperature": ({**RANDOM, "temperature": 1.0}, 0.0),
    "top_k": (RANDOM, 1),
    "top_p": ({**RANDOM, "top_k": 0}, 0.0001),
    "top_n_sigma": ({**RANDOM, "top_k": 0, "top_p": 1.0}, 0.1),
    "typical_p": ({**RANDOM, "top_k": 0, "top_p": 1.0}, 0.01),
    "xtc_probability": ({**RANDOM, "xtc_threshold": 0.00001, "top_k": 0}, 1.0),
    "xtc_threshold": ({**RANDOM, "xtc_probability": 1.0, "top_k": 0}, 0.00001),
}


FIELDS = {route.paths[0]: {item.name for item in route.fields().fields if not item.ignored} for route in text_table()}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    file = tmp_path_factory.mktemp("effects") / "models.toml"
    file.write_text(CONFIG)
    with running_server("--config", file) as found:
        yield found


def text_of(route: str, data: dict[str, Any]) -> str:
    if route == "/completion":
        return str(data["content"])
    if route == "/v1/messages":
        return "".join(block.get("text") or block.get("thinking") for block in data["content"])
    if route == "/v1/responses":
        return "".join(part["text"] for item in data["output"] for part in item["content"])
    (choice,) = data["choices"]
    if "text" in choice:
        return str(choice["text"])
    return (choice["message"].get("reasoning_content") or "") + (choice["message"]["content"] or "")


def generate(server: Server, route: str, fields: Mapping[str, Any]) -> str:
    body = {"model": "tiny", LENGTH: 24, "cache_prompt": False, **ROUTES[route], **fields}
    if route == "/v1/responses":
        body["max_output_tokens"] = fields.get("max_output_tokens", body.pop(LENGTH))
    response = server.post(route, body)
    assert response.status_code == 200, response.text
    return text_of(route, response.json())


@pytest.mark.parametrize("name", CASES)
def test_field_changes_the_text_on_every_route(tiny: Server, name: str) -> None:
    without, value = CASES[name]
    for route in (route for route in ROUTES if name in FIELDS[route]):
        base = generate(tiny, route, without)
        assert base == generate(tiny, route, without), "not reproducible"
        assert generate(tiny, route, {**without, name: value}) != base, route


# Fields that change something else than the text, or a text like this one, and the test of their effect.
ELSEWHERE = {
    "server/test_field_effects.py": (
        "n_cache_reuse",
        "n_cmpl",
        "response_fields",
        "return_progress",
        "timings_per_token",
        "modalities",  # has one value
        "backend_sampling",
    ),
    "server/test_text_clients.py": (
        *("background", "best_of", "include", "input", "messages", "metadata", "model", "n"),
        *("parallel_tool_calls", "previous_response_id", "prompt", "store", "stream", "stream_options", "suffix"),
        *("thinking", "tool_choice", "tools", "top_logprobs", "truncation", "logprobs"),
    ),
    "server/test_text_routes.py": ("id_slot", "lora", "parse_special"),
    "server/test_route_fields.py": ("sse_ping_interval",),
    "language/test_slots.py": ("cache_prompt", "verbose"),
    "language/test_stream_results.py": ("echo",),
    "language/test_logprobs.py": ("n_probs", "post_sampling_probs", "return_tokens"),
    "language/test_reasoning.py": ("reasoning_format",),
}


def test_every_field_has_a_test_of_its_effect() -> None:
    elsewhere = {name for names in ELSEWHERE.values() for name in names}
    for route in ROUTES:
        left = FIELDS[route] - {*CASES, *elsewhere}
        assert not left, (route, left)
    tests = Path(__file__).resolve().parents[1]
    for file, names in ELSEWHERE.items():
        words = set(re.findall(r"\w+", (tests / file).read_text()))
        assert set(names) <= words, (file, set(names) - words)


def events_of(server: Server, route: str, **fields: Any) -> list[dict[str, Any]]:
    body = {"model": "tiny", "max_tokens": 4, **RANDOM, **ROUTES[route], **fields}
    lines = server.post(route, {**body, "stream": True}).text.splitlines()
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


@pytest.mark.parametrize("route", ["/v1/chat/completions", "/v1/completions", "/completion"])
def test_streams_have_progress_and_timings(tiny: Server, route: str) -> None:
    plain = events_of(tiny, route)
    assert not any("prompt_progress" in event for event in plain)
    assert sum("timings" in event for event in plain) <= 1
    (progress, *_) = [event["prompt_progress"] for event in events_of(tiny, route, return_progress=True, cache_prompt=False)
                      if "prompt_progress" in event]  # fmt: skip
    assert progress["processed"] <= progress["total"] > 0
    assert sum("timings" in event for event in events_of(tiny, route, timings_per_token=True)) >= 4


def test_events_of_a_response_have_progress_and_timings(tiny: Server) -> None:
    body = {"model": "tiny", "input": "Hello", "max_output_tokens": 4, "stream": True, **RANDOM}
    plain = tiny.events("/v1/responses", body)
    assert [event["type"] for event in plain if "timings" in event] == ["response.incomplete"]
    assert not any("prompt_progress" in event for event in plain)
    asked = {**body, "return_progress": True, "timings_per_token": True, "cache_prompt": False}
    events = tiny.events("/v1/responses", asked)
    progress = [event for event in events if "prompt_progress" in event]
    assert progress and {event["type"] for event in progress} == {"response.in_progress"}
    assert all(event["prompt_progress"]["processed"] <= event["prompt_progress"]["total"] > 0 for event in progress)
    deltas = [event for event in events if event["type"].endswith(".delta")]
    assert deltas and all(event["timings"]["predicted_n"] > 0 for event in deltas)


def test_native_route_returns_the_selected_fields(tiny: Server) -> None:
    fields = {"prompt": "Hello", "model": "tiny", "n_predict": 2, "response_fields": ["content", "timings/predicted_n"]}
    found = tiny.post("/completion", fields).json()
    assert set(found) == {"content", "timings/predicted_n"}


def test_n_cmpl_is_the_number_of_choices(tiny: Server) -> None:
    found = tiny.post("/v1/completions", {"model": "tiny", "prompt": "Hello", "max_tokens": 2, "n_cmpl": 2}).json()
    assert len(found["choices"]) == 2


def test_cache_reuse_finds_text_at_another_place(tiny: Server) -> None:
    def cached(word: str, **fields: Any) -> int:
        words = " ".join(f"{word}{i}" for i in range(12))
        for prompt in (f"A long first sentence that goes away. {words}", words):
            body = {"model": "tiny", "prompt": prompt, "n_predict": 1, "id_slot": 0, **fields}
            found = tiny.post("/completion", body).json()
        return int(found["timings"]["cache_n"])

    assert cached("one", n_cache_reuse=8) > cached("two") + 8


def test_backend_sampling_keeps_the_text(tiny: Server) -> None:
    """It moves the sampling to the device of the model, here the same processor."""
    for route in ROUTES:
        assert generate(tiny, route, {**NEAR, "backend_sampling": True}) == generate(tiny, route, NEAR)
