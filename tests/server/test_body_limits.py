"""Limits on the contents of bodies: each has a name, and nothing is allocated for a body above it."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from server.running import Server, running_server
from starlette.exceptions import HTTPException

from cyllama.server.http.body_limits import ValueCounter, check_body
from cyllama.server.http.errors import error_body
from cyllama.server.http.queues import SMALL_BYTES, BodyBudget, EngineQueue
from cyllama.server.limits import Limits

MIB = 1 << 20
CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
USER = {"role": "user", "content": "x"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aaaa"}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


# Limit: (path, a body above its default)
ABOVE: dict[str, list[tuple[str, Any]]] = {
    "prompts": [
        (COMPLETION, {"prompt": ["a"] * 300_000}),
        (COMPLETION, {"prompt": [[1, 2]] * 3000}),
        ("/v1/embeddings", {"input": ["a"] * 3000}),
        ("/embedding", {"content": ["a"] * 3000}),
        ("/v1/rerank", {"query": "a", "documents": ["b"] * 3000}),
        ("/infill", {"input_prefix": "a", "input_suffix": "b", "input_extra": [{"text": "x", "filename": "y"}] * 3000}),
        ("/v1/responses", {"input": [USER] * 3000}),
    ],
    "messages": [
        (CHAT, {"messages": [USER] * 3000}),
        ("/v1/messages", {"messages": [USER] * 3000, "max_tokens": 1}),
        ("/apply-template", {"messages": [USER] * 3000}),
    ],
    "parts": [
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}] * 100}] * 50}),
        ("/v1/responses", {"input": [{"role": "user", "content": [{"type": "input_text", "text": "x"}] * 5000}]}),
    ],
    "media": [
        (CHAT, {"messages": [{"role": "user", "content": [IMAGE] * 20}]}),
        (COMPLETION, {"prompt": {"prompt_string": "x", "multimodal_data": ["aaaa"] * 20}}),
        ("/sdapi/v1/img2img", {"prompt": "x", "init_images": ["aaaa"] * 20}),
    ],
    "tools": [(CHAT, {"messages": [USER], "tools": [TOOL] * 200})],
    "text": [
        ("/tokenize", {"content": "a" * 8_000_000}),
        (COMPLETION, {"prompt": "a" * 3_000_000}),
        (CHAT, {"messages": [{**USER, "content": "a" * 700_000}] * 2}),
        (CHAT, {"messages": [USER], "chat_template_kwargs": {"data": "a" * 3_000_000}}),
        (CHAT, {"messages": [USER], "tools": [{"type": "function", "function": {"name": "f" * 3_000_000}}]}),
        ("/v1/images/generations", {"prompt": "a" * 3_000_000}),
    ],
    "values": [
        (COMPLETION, b'{"prompt":[' + b"[]," * 10_000_000 + b"[]]}"),
        (COMPLETION, b'{"prompt":[' + b'"a",' * 7_000_000 + b'"a"]}'),
        (COMPLETION, b'{"prompt":[' + b'{"a":1},' * 1_000_000 + b"1]}"),
        (COMPLETION, b'{"logit_bias":[' + b"[5,0.0]," * 2_000_000 + b"[5,0]]}"),
        ("/detokenize", b'{"tokens":[' + b"1," * 1_000_000 + b"1]}"),
    ],
    "depth": [(COMPLETION, {"prompt": nested(100)})],
}
CASES = [
    pytest.param(limit, *case, id=f"{limit}-{i}") for limit, cases in ABOVE.items() for i, case in enumerate(cases)
]


@pytest.mark.parametrize(("limit", "path", "body"), CASES)
def test_error_names_the_limit(tiny_open: Server, limit: str, path: str, body: Any) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = tiny_open.post(path, headers={"Content-Type": "application/json"}, data=raw)
    assert response.status_code == 400, response.text[:300]
    message = response.json()["error"]["message"]
    assert f"limits.{limit}" in message and f"{getattr(Limits(), limit):,}" in message
    assert tiny_open.get("/health").status_code == 200


def test_values_do_not_count_as_bytes(endless: Path) -> None:
    with running_server("--config", endless, "--max-body", "1MiB") as server:
        body = {"tokens": [1] * 100_000}  # 300 KB, which the parser turns into several megabytes
        assert server.post("/detokenize", body).status_code == 200


@pytest.fixture(scope="module")
def tiny_open(endless: Path) -> Iterator[Server]:
    """Start a server with the smallest model and the default limits."""
    with running_server("--config", endless) as found:
        yield found


def test_large_bodies_neither_take_memory_nor_block(endless: Path) -> None:
    """Eight times 10 million lists, which as Python objects would have 640 MiB each."""
    raw = b'{"prompt":[' + b"[]," * 10_000_000 + b"[]]}"
    with running_server("--config", endless, "--max-bodies", "512MiB") as server:
        before = peak(server)
        done = threading.Event()
        with ThreadPoolExecutor(9) as pool:
            probes = pool.submit(poll_health, server, done)
            statuses = [pool.submit(lambda: server.post(COMPLETION, data=raw).status_code) for _ in range(8)]
            found = {status.result() for status in statuses}
            done.set()
            slowest = probes.result()
        assert found <= {400, 429} and 400 in found
        assert peak(server) - before < 900 * MIB
        assert slowest < 20  # a watchdog


def poll_health(server: Server, done: threading.Event) -> float:
    slowest = 0.0
    while not done.wait(0.05):
        slowest = max(slowest, server.get("/health").elapsed.total_seconds())
    return slowest


def peak(server: Server) -> int:
    """Return the largest resident memory so far, in bytes."""
    for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the server does not run")


# ------------------------------------------------------------------------------------------ counts


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='a"\\,[{é\n') | st.floats(allow_nan=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet='a"\\,[{'), inner),
    max_leaves=20,
)


@settings(max_examples=60, deadline=None)
@given(JSONS, st.integers(1, 9))
def test_counts_values_without_parsing(value: Any, size: int) -> None:
    def count(item: Any) -> int:
        if not isinstance(item, list | dict):
            return 0
        inner = list(item.values()) if isinstance(item, dict) else item
        return max(1, len(inner)) + sum(map(count, inner))

    for ascii in (True, False):
        raw, counter = json.dumps(value, ensure_ascii=ascii).encode(), ValueCounter()
        for start in range(0, len(raw), size):
            counter.add(raw[start : start + size])
        assert counter.count == 1 + count(value)


def limits_of(**values: int) -> Limits:
    return dataclasses.replace(Limits(), **values)


@pytest.mark.parametrize(
    ("limit", "body"),
    [
        ("prompts", {"prompt": ["a", "b"]}),
        ("prompts", {"documents": ["a", [1, 2]]}),
        ("messages", {"messages": [USER, USER]}),
        ("tools", {"tools": [TOOL, TOOL]}),
        ("parts", {"messages": [{"role": "user", "content": ["a"]}, {"role": "user", "content": ["b"]}]}),
        ("media", {"messages": [{"role": "user", "content": [IMAGE, {"source": {"data": "aaaa"}}]}]}),
        ("text", {"a": "b"}),
        ("depth", {"a": []}),
    ],
)
def test_accepts_bodies_at_the_limit(limit: str, body: dict[str, Any]) -> None:
    check_body(body, limits_of(**{limit: 2}))
    with pytest.raises(HTTPException) as caught:
        check_body(body, limits_of(**{limit: 1}))
    assert f"limits.{limit}" in error_body(caught.value)["message"]


def test_tokens_and_files_have_other_limits() -> None:
    body: dict[str, Any] = {"prompt": [1] * 100, "messages": [{"role": "user", "content": [IMAGE]}]}
    check_body(body, limits_of(prompts=1, text=60, media=1))


# ----------------------------------------------------------------------------------- budget, queue


def test_small_bodies_are_accepted_beside_large_ones() -> None:
    budget = BodyBudget(10 * MIB)
    budget.acquire(10 * MIB)
    budget.acquire(SMALL_BYTES)
    with pytest.raises(HTTPException):
        budget.acquire(1, SMALL_BYTES)
    with pytest.raises(HTTPException):
        budget.acquire(SMALL_BYTES + 1)


def test_one_client_gets_a_part_of_the_queue() -> None:
    queue = EngineQueue("text", 5, client_capacity=2)
    queue.enter("one")
    queue.enter("one")
    with pytest.raises(HTTPException) as caught:
        queue.enter("one")
    assert caught.value.status_code == 429 and "limits.client_requests" in error_body(caught.value)["message"]
    assert int((caught.value.headers or {})["Retry-After"]) >= 1
    queue.enter("other")
    queue.leave(1.0, "one")
    queue.enter("one")
    assert (queue.size, queue.rejected) == (3, 1)
