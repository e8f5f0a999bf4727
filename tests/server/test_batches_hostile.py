"""`/v1/files` and `/v1/batches` with hostile files, folders and fields."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import json
import os
import stat
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from server.running import Server, running_server
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from cyllama.cli import main
from cyllama.server import Limits, ServerConfig
from cyllama.server.batches.jobs import BatchJobs
from cyllama.server.batches.requests import BatchRequest, read_requests
from cyllama.server.batches.run import run_requests
from cyllama.server.batches.store import BatchRecord, BatchStore
from cyllama.server.http.clients import account_name, client_name
from cyllama.server.state import ServerState


def test_a_store_deletes_only_files_that_it_made(tmp_path: Path) -> None:
    """Files of the user, folders and links stay; what an interrupted upload has left is deleted."""
    mine = {f"{part}/{name}" for part in ("files", "work") for name in ("notes.txt", "file-1", "batch_1.jsonl")}
    for name in mine:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    part = f"file-{'0' * 24}.part"
    (tmp_path / "work" / "sub").mkdir()
    (tmp_path / "files" / f"file-{'1' * 24}.part").mkdir()
    (tmp_path / "files" / f"file-{'2' * 24}.part").symlink_to(tmp_path / "files" / "notes.txt")
    (tmp_path / "files" / part).write_text("a part")
    BatchStore(tmp_path, Limits()).close()
    assert all((tmp_path / name).read_text() == "mine" for name in mine)
    assert (tmp_path / "work" / "sub").is_dir() and not (tmp_path / "files" / part).exists()


def test_only_the_user_reads_what_callers_send(tmp_path: Path) -> None:
    """The mode of a folder that exists stays, such as that of /tmp."""
    tmp_path.chmod(0o755)
    new = tmp_path / "new"
    for folder, mode in ((tmp_path, 0o755), (new, 0o700)):
        BatchStore(folder, Limits()).close()
        modes = {
            name: stat.S_IMODE((folder / name).stat().st_mode) for name in (".", "files", "work", "batches.sqlite")
        }
        assert modes == {".": mode, "files": 0o700, "work": 0o700, "batches.sqlite": 0o600}


def test_uploads_outlive_their_database(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = BatchStore(tmp_path, Limits())
    file = store.add_file("", "a", "batch", io.BytesIO(b"precious"))
    work = store.work_path(store.create_batch("", file.id, "/v1/completions", None, None).id)
    work.write_bytes(b"{}\n")
    store.close()
    for path in tmp_path.glob("batches.sqlite*"):
        path.unlink()
    store = BatchStore(tmp_path, Limits())
    store.close()
    assert store.path(file.id).read_bytes() == b"precious" and work.exists()
    assert file.id in caplog.text and work.name in caplog.text


def test_a_store_rejects_linked_folders(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a").write_text("mine")
    for name in ("files", "work"):
        folder = tmp_path / f"store-{name}"
        folder.mkdir()
        (folder / name).symlink_to(tmp_path / "other")
        with pytest.raises(ValueError, match="symbolic link"):
            BatchStore(folder, Limits())
    assert (tmp_path / "other" / "a").exists()


def test_a_damaged_database_is_an_error_of_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    BatchStore(tmp_path, Limits()).close()
    path = tmp_path / "batches.sqlite"
    whole = path.read_bytes()
    for content in (b"no database" * 1000, whole[:2000], whole[:4096] + b"\xff" * (len(whole) - 4096)):
        path.write_bytes(content)
        assert main(["serve", "-m", "tiny-random-llama", "--batch-folder", str(tmp_path), "--port", "0"]) == 1
        lines = [line for line in capsys.readouterr().err.splitlines() if "batches.sqlite" in line]
        assert len(lines) == 1 and str(path) in lines[0]
        assert path.read_bytes()[4096:] == content[4096:]


CHAT = "/v1/chat/completions"
CONFIG = """
batch_folder = "batches"
image_link_seconds = 60

[models.tiny]
model = "tiny-random-llama"
n_ctx = 512
n_threads = 1

[models.shapes]
kind = "sd"
model = "tiny-shapes"
"""
FINISHED = ("completed", "failed", "cancelled", "expired")


def line(custom_id: str, url: str = CHAT, **body: Any) -> str:
    """Return the line of a request, in ASCII."""
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body})


def chat(custom_id: str, text: str = "Hello") -> str:
    """Return the line of a short chat."""
    return line(custom_id, model="tiny", max_tokens=2, messages=[{"role": "user", "content": text}])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    path = tmp_path_factory.mktemp("hostile") / "models.toml"
    path.write_text(CONFIG)
    with running_server("--config", path) as found:
        yield found
        assert not [text for text in found.errors if "Traceback" in text], "".join(found.errors)


def upload(server: Server, content: str) -> str:
    """Upload a file, and return its identifier."""
    form = {"purpose": (None, "batch"), "file": ("a.jsonl", content.encode())}
    return str(requests.post(f"{server.url}/v1/files", files=form, timeout=60).json()["id"])


def finish(server: Server, content: str, url: str = CHAT) -> dict[str, Any]:
    """Run a batch to its end."""
    fields = {"input_file_id": upload(server, content), "endpoint": url, "completion_window": "24h"}
    batch = server.post("/v1/batches", fields).json()["id"]
    server.wait_until(lambda: server.get(f"/v1/batches/{batch}").json()["status"] in FINISHED)
    found: dict[str, Any] = server.get(f"/v1/batches/{batch}").json()
    return found


def results(server: Server, file_id: str) -> dict[str, Any]:
    """Return the results of a file by their ids."""
    lines = server.get(f"/v1/files/{file_id}/content").text.splitlines()
    return {item["custom_id"]: item for item in map(json.loads, lines)}


def test_empty_lines_are_limited(server: Server) -> None:
    batch = finish(server, chat("a") + "\n" * 2_000_000)
    assert batch["status"] == "failed" and batch["errors"]["data"][0]["code"] == "too_many_empty_lines"
    assert finish(server, "\n" * 1000 + chat("a") + "\n" * 1000)["status"] == "completed"


def test_requests_are_read_and_encoded_outside_of_the_event_loop(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.write_text(chat("a", "x" * 100_000) + "\n" * 50_000 + chat("b"))
    threads = set()

    def read() -> Iterator[BatchRequest]:
        for item in read_requests(source, Limits()):
            threads.add(threading.current_thread())
            assert isinstance(item, BatchRequest)
            yield item

    async def send(request: BatchRequest) -> dict[str, Any]:
        return {"custom_id": request.custom_id}

    found: list[str] = []
    asyncio.run(run_requests(read(), send, lambda item: found.append(item["custom_id"]), window=1))
    assert found == ["a", "b"] and threading.main_thread() not in threads


def test_faults_are_short_and_their_number_is_limited(server: Server) -> None:
    name = "x" * 100_000
    content = "\n".join(json.dumps({name + str(i): 1, "\ud800" * 9: 2}) for i in range(150))
    batch = finish(server, content)
    errors = batch["errors"]["data"]
    assert len(errors) == 101 and errors[-1]["code"] == "too_many_faults" and "line 100" in errors[-1]["message"]
    assert max(len(json.dumps(error)) for error in errors) < 2000
    listed = server.get("/v1/batches?limit=1").json()
    assert [item["id"] for item in listed["data"]] == [batch["id"]] and len(json.dumps(listed)) < 200_000


def test_lone_surrogates_are_rejected_before_a_batch_is_created(server: Server) -> None:
    good = {"input_file_id": upload(server, chat("a")), "endpoint": CHAT, "completion_window": "24h"}
    before = len(server.get("/v1/batches").json()["data"])
    for change, param in (
        ({"input_file_id": "\ud800"}, "input_file_id"),
        ({"metadata": {"a": "\ud800"}}, "metadata"),
        ({"metadata": {"\udfff": "a"}}, "metadata"),
        ({"endpoint": "\ud800"}, "endpoint"),
        ({"completion_window": "\ud800"}, "completion_window"),
    ):
        response = server.post("/v1/batches", data=json.dumps(good | change))
        assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    assert len(server.get("/v1/batches").json()["data"]) == before
    parts = (b'name="purpose"\r\n\r\nbatch', b'name="file"; filename="\\ud800"\r\n\r\nx')
    form = b"".join(b"--b\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts) + b"--b--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=b; charset=unicode_escape"}
    response = server.post("/v1/files", data=form, headers=headers)
    assert response.status_code == 400
    assert server.get("/v1/files").status_code == 200
    batch = finish(server, "\n".join(chat(name) for name in ("\ud800", "\ud801", "a\udfff")))
    assert [error["code"] for error in batch["errors"]["data"]] == ["invalid_custom_id"] * 3


def test_a_batch_returns_no_links(server: Server) -> None:
    url = "/v1/images/generations"
    body = {"prompt": "a red circle", "size": "128x128", "steps": 1, "response_format": "url"}
    batch = finish(server, line("a", url, **body), url)
    error = results(server, batch["error_file_id"])["a"]["response"]["body"]["error"]
    assert error["param"] == "response_format" and batch["output_file_id"] is None


def test_queries_and_ranges(server: Server) -> None:
    for query, param in (("limit=%D9%A1", "limit"), ("limit=1&limit=2", "limit"), ("after=a&after=b", "after")):
        for path in ("/v1/files", "/v1/batches"):
            response = server.get(f"{path}?{query}")
            assert (response.status_code, response.json()["error"]["param"]) == (400, param)
    path = f"/v1/files/{upload(server, '0123456789')}/content"
    for value, status, text in (
        ("bytes=2-4", 206, "234"),
        ("bytes=7-", 206, "789"),
        ("bytes=-2", 206, "89"),
        ("bytes=0-99", 200, "0123456789"),
        ("bytes=4-2", 200, "0123456789"),
        ("bytes=1-2,4-5", 200, "0123456789"),
        ("nonsense", 200, "0123456789"),
    ):
        response = server.get(path, headers={"Range": value})
        assert (response.status_code, response.text) == (status, text), value
        assert response.headers["content-length"] == str(len(text))
    for value in ("bytes=10-", "bytes=-0"):
        response = server.get(path, headers={"Range": value})
        assert response.status_code == 416 and response.json()["error"]["param"] == "Range"
        assert response.headers["content-range"] == "bytes */10"
    head = requests.head(server.url + path, timeout=60)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, "10", b"")


def test_a_file_is_deleted_while_it_is_read(server: Server) -> None:
    """The response is the whole file, or an error in the API's form."""
    content = "x" * 1_000_000

    def read(path: str) -> tuple[int, bytes]:
        response = server.get(path)
        if response.status_code == 404:
            assert response.json()["error"]["type"] == "not_found_error"
        return response.status_code, response.content

    seen = set()
    with ThreadPoolExecutor(4) as pool:
        for _ in range(15):
            path = f"/v1/files/{upload(server, content)}"
            reads = [pool.submit(read, f"{path}/content") for _ in range(4)]
            assert requests.delete(server.url + path, timeout=60).json()["deleted"]
            seen |= {future.result() for future in reads}
    assert all(status == 404 or (status, body) == (200, content.encode()) for status, body in seen)
    found = server.get(f"{path}/content")
    assert found.status_code == 404 and found.json()["error"]["message"]


# ------------------------------------------------------------------------------ jobs, without a server


@contextlib.asynccontextmanager
async def jobs_of(store: BatchStore, app: ASGIApp) -> AsyncIterator[None]:
    """Run the batches of a store with an application."""
    state = ServerState(ServerConfig.from_dict({"models": {"tiny": {"model": "tiny-random-llama"}}}))
    try:
        async with BatchJobs(state, store, app).running():
            yield
    finally:
        await state.close()


async def end_of(store: BatchStore, *batches: BatchRecord) -> list[BatchRecord]:
    """Wait until batches are finished."""
    async with asyncio.timeout(60):
        while True:
            found = [store.find_batch(batch.owner, batch.id) for batch in batches]
            if all(batch.status in FINISHED for batch in found):
                return found
            await asyncio.sleep(0.02)


def create(store: BatchStore, owner: str, *lines: str) -> BatchRecord:
    """Create a batch in a store."""
    file = store.add_file(owner, "a", "batch", io.BytesIO("\n".join(lines).encode()))
    return store.create_batch(owner, file.id, CHAT, None, None)


def kept(store: BatchStore, batch: BatchRecord, kind: str = "output") -> list[dict[str, Any]]:
    """Return the results of a batch."""
    return [json.loads(line) for line in store.path(batch.fields[f"{kind}_file_id"]).read_bytes().splitlines()]


def test_each_owner_is_a_client_of_its_own(tmp_path: Path) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await JSONResponse([account_name(scope), client_name(scope)])(scope, receive, send)

    async def main() -> None:
        store = BatchStore(tmp_path, Limits())
        batches = [create(store, owner, chat("a"), chat("b")) for owner in ("first", "second")]
        async with jobs_of(store, app):
            found = await end_of(store, *batches)
            names = [[item["response"]["body"] for item in kept(store, batch)] for batch in found]
        assert names[0][0] == names[0][1] and names[1][0] == names[1][1]
        assert not set(names[0][0]) & set(names[1][0])

    asyncio.run(main())


def test_a_full_disk_keeps_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The results until then are the output of the batch, also after a restart."""
    write = os.write

    def limited(descriptor: int, data: bytes) -> int:
        if b'"custom_id": "r3"' in data:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await JSONResponse({})(scope, receive, send)

    async def main() -> BatchRecord:
        store = BatchStore(tmp_path, Limits())
        batch = create(store, "", *(chat(f"r{i}") for i in range(40)))
        async with jobs_of(store, app):
            return (await end_of(store, batch))[0]

    monkeypatch.setattr("cyllama.server.batches.output.os.write", limited)
    batch = asyncio.run(main())
    assert batch.status == "failed"
    assert os.strerror(errno.ENOSPC) in batch.fields["errors"]["data"][0]["message"]
    store = BatchStore(tmp_path, Limits())
    try:
        found = store.find_file("", batch.fields["output_file_id"])
        lines = kept(store, batch)
        assert found.bytes == store.path(found.id).stat().st_size and found.purpose == "batch_output"
        assert 0 < len(lines) == batch.fields["request_counts"]["completed"] < 40
    finally:
        store.close()


def test_retries_end_with_the_time_of_the_batch(tmp_path: Path) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await JSONResponse({}, 503, {"Retry-After": "1"})(scope, receive, send)

    async def main() -> None:
        store = BatchStore(tmp_path, Limits())
        batch = create(store, "", chat("a"))
        store.update(batch.id, expires_at=int(time.time()) + 1)
        async with jobs_of(store, app):
            (found,) = await end_of(store, batch)
            assert found.status == "expired"
            assert kept(store, found, "error")[0]["error"]["code"] == "batch_expired"

    asyncio.run(main())
