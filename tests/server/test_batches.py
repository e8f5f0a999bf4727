"""`/v1/files` and `/v1/batches`: the client's flows, callers, limits, priority, restarts."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import openai
import pytest
import requests
from openai import OpenAI
from server.running import Server, running_server

from cyllama.cli import main
from cyllama.server import Limits, ServerConfig
from cyllama.server.batches.store import BatchStore

FIRST, SECOND = "first-key", "second-key"
CONFIG = f"""
api_keys = ["{FIRST}", "{SECOND}"]
batch_folder = "batches"

[limits]
body = "1 MiB"
files = 20
batches = 3
batch_requests = 2000

[models.tiny]
model = "tiny-random-llama"
n_ctx = 2048
n_parallel = 4
n_threads = 1
preload = true

[models.minilm]
model = "minilm-l6"
embedding = true

[models.shapes]
kind = "sd"
model = "tiny-shapes"
"""
CHAT = "/v1/chat/completions"
FINISHED = ("completed", "failed", "cancelled", "expired")
LONG = {"max_tokens": 300, "ignore_eos": True}


def chats(count: int, more: Mapping[str, Any] | None = None, bad: tuple[int, ...] = ()) -> bytes:
    """Return a file of requests; those of the numbers in `bad` have an unknown field."""
    lines = []
    for i in range(count):
        body = {
            "model": "tiny",
            "messages": [{"role": "user", "content": f"number {i}"}],
            "max_tokens": 3,
            **(more or {}),
        }
        body |= {"nonsense": 1} if i in bad else {}
        lines.append(json.dumps({"custom_id": f"r{i}", "method": "POST", "url": CHAT, "body": body}))
    return "\n".join(lines).encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("batches")
    (found / "models.toml").write_text(CONFIG)
    return found


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with running_server("--config", folder / "models.toml") as found:
        yield found
        assert not [line for line in found.errors if "Traceback" in line], "".join(found.errors)


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key=FIRST, max_retries=0) as found:
        yield found


@pytest.fixture(autouse=True)
def _clean(client: OpenAI) -> Iterator[None]:
    """Leave no file and no unfinished batch to the next test."""
    yield
    for batch in client.batches.list():
        if batch.status not in FINISHED:
            client.batches.cancel(batch.id)
            finish(client, batch.id)
    for file in client.files.list():
        client.files.delete(file.id)


def start(client: OpenAI, content: bytes, endpoint: Any = CHAT, **more: Any) -> Any:
    """Upload a file and create its batch."""
    file = client.files.create(file=("requests.jsonl", content), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h", **more)


def finish(client: OpenAI, batch_id: str, seconds: float = 60) -> Any:
    """Wait until a batch is finished."""
    end = time.monotonic() + seconds
    while (batch := client.batches.retrieve(batch_id)).status not in FINISHED:
        assert time.monotonic() < end, batch
        time.sleep(0.05)
    return batch


def lines_of(client: OpenAI, file_id: str) -> dict[str, Any]:
    """Return the results of a file by their ids."""
    found = [json.loads(line) for line in client.files.content(file_id).text.splitlines()]
    assert len({item["custom_id"] for item in found}) == len(found)
    return {item["custom_id"]: item for item in found}


def test_runs_a_batch_of_the_client(client: OpenAI) -> None:
    batch = start(client, chats(20, bad=(3, 11)), metadata={"night": "1"})
    assert batch.object == "batch" and batch.metadata == {"night": "1"} and batch.endpoint == CHAT
    assert batch.expires_at == batch.created_at + 24 * 3600
    batch = finish(client, batch.id)
    assert batch.status == "completed" and batch.completed_at >= batch.in_progress_at >= batch.created_at
    assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (20, 18, 2)
    good, bad = lines_of(client, batch.output_file_id), lines_of(client, batch.error_file_id)
    assert set(good) | set(bad) == {f"r{i}" for i in range(20)} and set(bad) == {"r3", "r11"}
    assert good["r0"]["response"]["body"]["choices"][0]["message"]["content"]
    assert bad["r3"]["response"]["status_code"] == 400
    assert bad["r3"]["response"]["body"]["error"]["param"] == "nonsense"
    assert client.files.retrieve(batch.output_file_id).purpose == "batch_output"


def test_runs_embeddings_and_images(client: OpenAI) -> None:
    for url, body in (
        ("/v1/embeddings", {"model": "minilm", "input": "hello"}),
        ("/v1/images/generations", {"prompt": "a red circle", "size": "128x128", "steps": 2}),
    ):
        request = {"custom_id": "a", "method": "POST", "url": url, "body": body}
        batch = finish(client, start(client, json.dumps(request).encode(), url).id)
        assert batch.status == "completed" and batch.error_file_id is None
        assert lines_of(client, batch.output_file_id)["a"]["response"]["body"]["data"]


def test_an_invalid_file_fails_with_its_lines(client: OpenAI) -> None:
    lines = [
        {"custom_id": "a", "method": "POST", "url": CHAT, "body": {}},
        {"custom_id": "a", "method": "POST", "url": CHAT, "body": {}},
        {"custom_id": "b", "method": "POST", "url": "/v1/embeddings", "body": {}},
    ]
    content = "\n".join([*map(json.dumps, lines), "no json"]).encode()
    batch = finish(client, start(client, content).id)
    assert batch.status == "failed" and batch.errors and batch.errors.data
    assert [(error.line, error.code) for error in batch.errors.data] == [
        (2, "duplicate_custom_id"),
        (3, "invalid_url"),
        (4, "invalid_json_line"),
    ]
    assert finish(client, start(client, b"\n\n").id).errors.data[0].code == "empty_file"
    many = finish(client, start(client, chats(2001)).id)
    assert many.status == "failed" and many.errors.data[0].code == "too_many_requests"


def test_a_batch_is_cancelled_and_keeps_its_results(client: OpenAI) -> None:
    batch = start(client, chats(2000))
    while client.batches.retrieve(batch.id).request_counts.completed == 0:
        time.sleep(0.05)
    assert client.batches.cancel(batch.id).status == "cancelling"
    found = finish(client, batch.id)
    assert found.status == "cancelled" and found.cancelled_at >= found.cancelling_at
    assert 0 < found.request_counts.completed < 2000
    assert len(lines_of(client, found.output_file_id)) == found.request_counts.completed
    with pytest.raises(openai.ConflictError):
        client.batches.cancel(batch.id)
    follows = start(client, chats(1))
    assert finish(client, follows.id).status == "completed"


def test_lists_are_paged(client: OpenAI) -> None:
    files = [client.files.create(file=(f"{i}.jsonl", chats(1)), purpose="batch").id for i in range(5)]
    assert [file.id for file in client.files.list(limit=2)] == files[::-1]  # the client follows the pages
    assert [file.id for file in client.files.list(limit=2, order="asc").data] == files[:2]
    page = client.files.list(limit=2, after=files[3])
    assert [file.id for file in page.data] == [files[2], files[1]] and page.has_more
    assert client.files.list(purpose="batch_output").data == []
    batches = [
        client.batches.create(input_file_id=file, endpoint=CHAT, completion_window="24h").id for file in files[:3]
    ]
    for batch in batches:
        finish(client, batch)
    assert [batch.id for batch in client.batches.list(limit=1)][:3] == batches[::-1]


def test_items_belong_to_their_caller(client: OpenAI, server: Server) -> None:
    batch = finish(client, start(client, chats(2)).id)
    with OpenAI(base_url=f"{server.url}/v1", api_key=SECOND, max_retries=0) as other:
        assert other.files.list().data == [] and other.batches.list().data == []
        for call in (
            lambda: other.files.retrieve(batch.input_file_id),
            lambda: other.files.content(batch.output_file_id),
            lambda: other.files.delete(batch.input_file_id),
            lambda: other.batches.retrieve(batch.id),
            lambda: other.batches.cancel(batch.id),
            lambda: other.batches.create(input_file_id=batch.input_file_id, endpoint=CHAT, completion_window="24h"),
        ):
            with pytest.raises(openai.NotFoundError):
                call()
    with pytest.raises(openai.AuthenticationError):
        OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0).files.list()


def test_files_are_deleted_unless_a_batch_uses_them(client: OpenAI, folder: Path) -> None:
    batch = start(client, chats(2000))
    with pytest.raises(openai.ConflictError):
        client.files.delete(batch.input_file_id)
    client.batches.cancel(batch.id)
    finish(client, batch.id)
    assert client.files.delete(batch.input_file_id).deleted
    assert not (folder / "batches" / "files" / batch.input_file_id).exists()
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(batch.input_file_id)


def test_rejects_fields_by_name(client: OpenAI, server: Server) -> None:
    file = client.files.create(file=("a.jsonl", chats(1)), purpose="batch")
    good: dict[str, Any] = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h"}
    headers = {"Authorization": f"Bearer {FIRST}"}
    for change, param in (
        ({"completion_window": "1h"}, "completion_window"),
        ({"endpoint": "/v1/nothing"}, "endpoint"),
        ({"endpoint": ["x"]}, "endpoint"),
        ({"input_file_id": 3}, "input_file_id"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"metadata": {str(i): "" for i in range(17)}}, "metadata"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, "output_expires_after.seconds"),
        ({"output_expires_after": {"anchor": "later", "seconds": 3600}}, "output_expires_after"),
        ({"nonsense": 1}, "nonsense"),
    ):
        response = server.post("/v1/batches", {**good, **change}, headers=headers)
        assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    for query, param in (("limit=0", "limit"), ("limit=x", "limit"), ("after=x", "after"), ("order=up", "order"),
                         ("purpose=vision", "purpose"), ("nonsense=1", "nonsense")):  # fmt: skip
        response = server.get(f"/v1/files?{query}", headers=headers)
        assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    url, content = f"{server.url}/v1/files", ("a.jsonl", chats(1))
    forms: list[tuple[dict[str, Any], str]] = [
        ({"purpose": (None, "assistants"), "file": content}, "purpose"),
        ({"file": content}, "purpose"),
        ({"purpose": (None, "batch")}, "file"),
        ({"purpose": (None, "batch"), "file": (None, "text")}, "file"),
        ({"purpose": (None, "batch"), "file": content, "nonsense": (None, "1")}, "nonsense"),
        ({"purpose": (None, "batch"), "file": content, "expires_after[anchor]": (None, "created_at")}, "expires_after"),
    ]
    for form, param in forms:
        response = requests.post(url, files=form, headers=headers, timeout=60)
        assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    response = requests.post(url, files={"purpose": (None, "batch"), "file": ("a", bytes(2 << 20))}, headers=headers)
    assert response.status_code == 413


def test_limits_the_files_and_unfinished_batches_of_a_caller(client: OpenAI) -> None:
    first = start(client, chats(2000, LONG))
    for _ in range(2):
        client.batches.create(input_file_id=first.input_file_id, endpoint=CHAT, completion_window="24h")
    with pytest.raises(openai.RateLimitError, match=r"limits\.batches"):
        client.batches.create(input_file_id=first.input_file_id, endpoint=CHAT, completion_window="24h")
    with pytest.raises(openai.RateLimitError, match=r"limits\.files"):
        for _ in range(21):
            client.files.create(file=("a.jsonl", b"{}"), purpose="batch")


def test_other_requests_find_a_free_slot_during_a_batch(client: OpenAI, server: Server) -> None:
    """A batch of long requests keeps at most three of the four slots, and none in the engine's queue."""
    start(client, chats(200, LONG))
    headers = {"Authorization": f"Bearer {FIRST}"}

    def busy() -> int:
        slots = server.get("/slots?model=tiny", headers=headers).json()
        return sum(slot["is_processing"] for slot in slots)

    server.wait_until(lambda: busy() == 3)
    seen = [busy() for _ in range(20)]
    assert max(seen) == 3
    deferred = server.get("/metrics", headers=headers).text
    waiting = [line for line in deferred.splitlines() if line.startswith("llamacpp:requests_deferred")]
    assert [float(line.rsplit(" ", 1)[1]) for line in waiting] == [0.0] * len(waiting) and waiting


def test_a_batch_waits_while_others_use_the_slots(client: OpenAI, server: Server) -> None:
    batch = start(client, chats(2000))
    headers = {"Authorization": f"Bearer {FIRST}"}
    server.wait_until(lambda: client.batches.retrieve(batch.id).request_counts.completed > 0)
    body = {"model": "tiny", "messages": [{"role": "user", "content": "a"}], "stream": True, "max_tokens": 1800}
    with contextlib.ExitStack() as stack:
        for _ in range(3):  # more than a connection buffers, and nobody reads it
            url, fields = f"{server.url}{CHAT}", {**body, "ignore_eos": True, "logprobs": True, "top_logprobs": 20}
            stack.enter_context(requests.post(url, json=fields, headers=headers, stream=True, timeout=60))

        def requests_of_the_engine() -> str:
            lines = server.get("/metrics", headers=headers).text.splitlines()
            return next(line for line in lines if line.startswith('cyllama_engine_requests{engine="llm"}'))

        server.wait_until(lambda: requests_of_the_engine().endswith(" 3"))
        before = client.batches.retrieve(batch.id).request_counts
        for _ in range(20):
            assert requests_of_the_engine().endswith(" 3")
        assert client.batches.retrieve(batch.id).request_counts == before
    assert client.batches.retrieve(batch.id).status == "in_progress"
    server.wait_until(lambda: client.batches.retrieve(batch.id).request_counts.completed > before.completed)


def test_a_killed_server_continues_its_batches(folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "models.toml"
    config.write_text(CONFIG)
    count = 600
    with running_server("--config", config) as server:
        with OpenAI(base_url=f"{server.url}/v1", api_key=FIRST, max_retries=0) as client:
            batch = start(client, chats(count))
            waiting = start(client, chats(3))
            while client.batches.retrieve(batch.id).request_counts.completed == 0:
                time.sleep(0.02)
        assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    work = tmp_path / "batches" / "work" / f"{batch.id}.jsonl"
    kept = work.read_bytes().count(b"\n")
    assert 0 < kept < count
    with open(work, "ab") as file:
        file.write(b'{"id": "batch_req_')  # as a kill in the middle of a line leaves it
    with running_server("--config", config) as server:
        with OpenAI(base_url=f"{server.url}/v1", api_key=FIRST, max_retries=0) as client:
            server.wait_until(lambda: client.batches.retrieve(batch.id).request_counts.completed > kept)
        assert server.stop() == 0  # also a server that is stopped continues later
    with running_server("--config", config) as server, OpenAI(base_url=f"{server.url}/v1", api_key=FIRST) as client:
        found = finish(client, batch.id)
        assert found.status == "completed" and found.request_counts.completed == count
        assert set(lines_of(client, found.output_file_id)) == {f"r{i}" for i in range(count)}
        assert finish(client, waiting.id).status == "completed"
        assert list((tmp_path / "batches" / "work").iterdir()) == []


def test_requests_that_were_not_run_in_time_expire(tmp_path: Path) -> None:
    config = tmp_path / "models.toml"
    config.write_text(CONFIG)
    store = BatchStore(tmp_path / "batches", Limits())
    owner = "a7a6b4e4f6b8"
    file = store.add_file(owner, "a.jsonl", "batch", io.BytesIO(chats(4)))
    batch = store.create_batch(owner, file.id, CHAT, None, 3600)
    store.update(batch.id, expires_at=int(time.time()) - 1)
    store.close()
    with running_server("--config", config) as server:
        server.wait_until(lambda: list((tmp_path / "batches" / "files").glob("*-error")) != [])
        server.wait_until(lambda: not list((tmp_path / "batches" / "work").iterdir()))
    store = BatchStore(tmp_path / "batches", Limits())
    try:
        found = store.find_batch(owner, batch.id)
        assert found.status == "expired" and found.fields["output_file_id"] is None
        errors = store.find_file(owner, found.fields["error_file_id"])
        lines = [json.loads(line) for line in store.path(errors.id).read_bytes().splitlines()]
        assert [line["error"]["code"] for line in lines] == ["batch_expired"] * 4
        assert errors.expires_at == errors.created_at + 3600
    finally:
        store.close()


def test_expired_files_do_not_exist(tmp_path: Path) -> None:
    store = BatchStore(tmp_path, Limits(file_bytes=100))
    try:
        old = store.add_file("", "a", "batch", io.BytesIO(b"x" * 60), -1)
        assert store.path(old.id).exists()
        with pytest.raises(Exception, match="404"):
            store.find_file("", old.id)
        new = store.add_file("", "b", "batch", io.BytesIO(b"x" * 60))  # there is room again
        assert not store.path(old.id).exists()
        with pytest.raises(Exception, match="413"):
            store.add_file("", "c", "batch", io.BytesIO(b"x" * 60))
        assert [path.name for path in (tmp_path / "files").iterdir()] == [new.id]
    finally:
        store.close()


def test_a_folder_is_used_by_one_server(folder: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--config", str(folder / "models.toml"), "--port", "0"]) == 1
    assert "another process" in capsys.readouterr().err


def test_without_a_folder_there_are_no_such_routes(tiny_server: Server) -> None:
    for path in ("/v1/files", "/v1/batches"):
        assert tiny_server.get(path).status_code == 404
    with pytest.raises(TypeError, match="batch_folder is 3"):
        ServerConfig.from_dict({"batch_folder": 3, "models": {"tiny-random-llama": {}}})
