"""`cyllama batch`: every route, errors in lines, resuming after kills, order, workers."""

from __future__ import annotations

import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from cyllama.cli import main
from cyllama.server import ServerConfig
from cyllama.server.batches.files import run_file
from cyllama.server.batches.workers import LocalWorker, ProcessWorker

CONFIG = """
[models.tiny]
model = "tiny-random-llama"
n_ctx = 2048
n_parallel = 4
n_threads = 1

[models.minilm]
model = "minilm-l6"
embedding = true

[models.reranker]
model = "tiny-random-reranker"
reranking = true

[models.shapes]
kind = "sd"
model = "tiny-shapes"
"""
CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("batch") / "models.toml"
    path.write_text(CONFIG)
    return path


def line(custom_id: str, url: str = CHAT, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a request."""
    fields = {"model": "tiny", "messages": MESSAGES, "max_tokens": 3} if body is None else body
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": fields}


def write(path: Path, lines: Iterable[Any]) -> Path:
    """Write requests as JSON lines."""
    path.write_text("".join(f"{item if isinstance(item, str) else json.dumps(item)}\n" for item in lines))
    return path


def read(path: Path) -> dict[str, dict[str, Any]]:
    """Return the results by their ids; each must be there once."""
    found = [json.loads(text) for text in path.read_text().splitlines()]
    assert len({item["custom_id"] for item in found}) == len(found)
    return {item["custom_id"]: item for item in found}


def run(*arguments: object) -> int:
    return main(["batch", *map(str, arguments)])


ROUTES: dict[str, tuple[dict[str, Any], str]] = {
    "/v1/chat/completions": ({"messages": MESSAGES, "max_tokens": 2}, "choices"),
    "/v1/chat/completions/input_tokens": ({"messages": MESSAGES}, "input_tokens"),
    "/v1/completions": ({"prompt": "Hello", "max_tokens": 2}, "choices"),
    "/completion": ({"prompt": "Hello", "n_predict": 2}, "content"),
    "/v1/responses": ({"input": "Hello", "max_output_tokens": 2}, "output"),
    "/v1/responses/input_tokens": ({"input": "Hello"}, "input_tokens"),
    "/v1/messages": ({"messages": MESSAGES, "max_tokens": 2}, "content"),
    "/v1/messages/count_tokens": ({"messages": MESSAGES}, "input_tokens"),
    "/apply-template": ({"messages": MESSAGES}, "prompt"),
    "/tokenize": ({"content": "Hello"}, "tokens"),
    "/detokenize": ({"tokens": [300]}, "content"),
    "/v1/embeddings": ({"model": "minilm", "input": "Hello"}, "data"),
    "/embedding": ({"model": "minilm", "content": "Hello"}, ""),
    "/v1/rerank": ({"model": "reranker", "query": "a", "documents": ["b", "c"]}, "results"),
    "/api/chat": ({"model": "tiny", "messages": MESSAGES, "stream": False, "options": {"num_predict": 2}}, "message"),
    "/api/generate": ({"model": "tiny", "prompt": "a", "stream": False, "options": {"num_predict": 2}}, "response"),
    "/api/embed": ({"model": "minilm", "input": "Hello"}, "embeddings"),
    "/api/embeddings": ({"model": "minilm", "prompt": "Hello"}, "embedding"),
    "/v1/images/generations": ({"prompt": "a red circle", "size": "128x128", "steps": 2}, "data"),
    "/sdapi/v1/txt2img": ({"prompt": "a red circle", "width": 128, "height": 128, "steps": 2}, "images"),
}
OTHER_NAMES = {
    *("/chat/completions", "/chat/completions/input_tokens", "/completions", "/responses", "/responses/input_tokens"),
    *("/embeddings", "/v1/reranking", "/rerank", "/reranking"),
}
UNTRIED = {"/infill", "/sdapi/v1/img2img"}  # need another model, or an image


def test_runs_every_route_of_the_server(config: Path, tmp_path: Path) -> None:
    from cyllama.server.batches.requests import batch_urls

    assert set(batch_urls()) == {*ROUTES, *OTHER_NAMES, *UNTRIED}
    source = write(tmp_path / "in", (line(url, url, body) for url, (body, _) in ROUTES.items()))
    assert run(source, tmp_path / "out", "-c", config, "--ordered") == 0
    found = read(tmp_path / "out")
    assert list(found) == list(ROUTES)
    for url, (_, key) in ROUTES.items():
        item = found[url]
        assert set(item) == {"id", "custom_id", "response", "error"} and item["error"] is None
        assert item["response"]["status_code"] == 200 and (not key or item["response"]["body"][key]), item
    assert len({item["id"] for item in found.values()}) == len(found)


def test_errors_of_a_request_are_in_its_line(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bodies = {
        "good": None,
        "field": {"messages": MESSAGES, "nonsense": 1},
        "model": {"model": "gpt-9", "messages": MESSAGES},
        "stream": {"messages": MESSAGES, "stream": True},
        "long": {"messages": [{"role": "user", "content": "word " * 9000}]},
    }
    requests = [line(name, body=body) for name, body in bodies.items()]
    requests.append(line("ollama", "/api/chat", {"model": "tiny", "messages": MESSAGES}))
    assert run(write(tmp_path / "in", requests), tmp_path / "out", "-c", config) == 3
    assert "6 requests, 5 failed" in capsys.readouterr().err
    found = read(tmp_path / "out")
    errors = {name: item["response"]["body"].get("error") for name, item in found.items()}
    assert errors.pop("good") is None and found["good"]["response"]["status_code"] == 200
    assert {name: found[name]["response"]["status_code"] for name in errors} == {
        **dict.fromkeys(errors, 400),
        "model": 404,
    }
    params = {name: error["param"] for name, error in errors.items()}
    assert params == {"field": "nonsense", "model": "model", "stream": "stream", "long": None, "ollama": "stream"}
    assert errors["long"]["type"] == "exceed_context_size_error"


def test_a_terminal_shows_the_progress_and_the_time_that_is_left(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    assert run(write(tmp_path / "in", [line("a"), line("b")]), tmp_path / "out", "-c", config) == 0
    assert re.search(r"2/2 requests, [\d.]+/s, about 00:00:00 left", screen.getvalue())
    quiet = Terminal()
    monkeypatch.setattr(sys, "stderr", quiet)
    assert run(tmp_path / "in", tmp_path / "out", "-c", config, "-q") == 0 and not quiet.getvalue()


def test_names_the_lines_that_are_no_requests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = [
        line("a"),
        "",
        "no json",
        line("a"),
        line("b", "/v1/nothing"),
        {**line("c"), "method": "GET"},
        {**line("d"), "body": []},
        {**line("e"), "more": 1},
        {"method": "POST", "url": CHAT, "body": {}},
        line("f" * 513),
        "[1]",
        '{"a": ' * 1000,
    ]
    assert run(write(tmp_path / "in", bad), tmp_path / "out", "-m", "tiny-random-llama") == 1
    text = capsys.readouterr().err
    for number, word in (
        (3, "JSON"),
        (4, "line 1"),
        (5, "/v1/nothing"),
        (6, "GET"),
        (7, "body"),
        (8, "more"),
        (9, "custom_id"),
    ):
        assert f"line {number}: " in text and word in text
    assert "line 1:" not in text and not (tmp_path / "out").exists()


def test_rejects_outputs_that_belong_to_something_else(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "in", [line("a"), line("b")])
    text = tmp_path / "text"
    text.write_text("precious\n")
    assert run(source, text, "-c", config) == 1 and "line 1" in capsys.readouterr().err
    assert text.read_text() == "precious\n"
    assert run(source, source, "-c", config) == 1 and "output is the input" in capsys.readouterr().err
    result = {"id": "x", "custom_id": "z", "response": {"status_code": 200, "body": {}}, "error": None}
    other = write(tmp_path / "other", [result])
    assert run(source, other, "-c", config) == 1 and "'z'" in capsys.readouterr().err
    twice = write(tmp_path / "twice", [{**result, "custom_id": "a"}] * 2)
    assert run(source, twice, "-c", config) == 1 and "'a' again" in capsys.readouterr().err
    late = write(tmp_path / "late", [{**result, "custom_id": "b"}])
    assert run(source, late, "-c", config, "--ordered") == 1 and "order" in capsys.readouterr().err
    assert run(source, late, "-c", config) == 0 and list(read(late)) == ["b", "a"]
    for name in ("--parallel", "--workers"):
        assert run(source, tmp_path / "new", "-c", config, name, 0) == 1 and f"{name} is 0" in capsys.readouterr().err


def test_a_last_line_that_was_written_in_part_is_run_again(config: Path, tmp_path: Path) -> None:
    source, target = write(tmp_path / "in", [line(f"r{i}") for i in range(4)]), tmp_path / "out"
    assert run(source, target, "-c", config, "--ordered") == 0
    whole = target.read_bytes().splitlines(keepends=True)
    for rest in (whole[2][:40], whole[2][:-1], b"\0" * 100):
        target.write_bytes(b"".join(whole[:2]) + rest)
        assert run(source, target, "-c", config, "--ordered") == 0
        assert target.read_bytes().splitlines(keepends=True)[:2] == whole[:2]
        assert list(read(target)) == ["r0", "r1", "r2", "r3"]


def test_two_processes_do_not_write_the_same_file(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from cyllama.server.batches.output import OutputFile

    source = write(tmp_path / "in", [line("a")])
    with OutputFile(tmp_path / "out"):
        assert run(source, tmp_path / "out", "-c", config) == 1
    assert "another process" in capsys.readouterr().err


@pytest.mark.parametrize(("kills", "ordered"), [(3, False), (1, True)])
def test_is_resumed_after_kills_with_each_request_once(config: Path, tmp_path: Path, kills: int, ordered: bool) -> None:
    count = 300
    source, target = write(tmp_path / "in", (line(f"r{i}") for i in range(count))), tmp_path / "out"
    command = [sys.executable, "-m", "cyllama", "batch", str(source), str(target), "-c", str(config)]
    command += ["--ordered"] if ordered else []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    chance, sizes = random.Random(1), [0]
    for _ in range(kills):
        aim = sizes[-1] + chance.randint(20, 60)
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as program:
            end = time.monotonic() + 60
            while not target.exists() or target.read_bytes().count(b"\n") < aim:
                assert program.poll() is None and time.monotonic() < end
                time.sleep(0.001)
            program.kill()
        sizes.append(target.read_bytes().count(b"\n"))
    assert sizes == sorted(set(sizes)) and sizes[-1] < count
    before = target.read_bytes()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{count} requests, 0 failed, {sizes[-1]} of an earlier run" in done.stderr
    assert target.read_bytes().startswith(before[: before.rindex(b"\n") + 1])
    found = read(target)
    assert set(found) == {f"r{i}" for i in range(count)}
    assert not ordered or list(found) == [f"r{i}" for i in range(count)]


def test_ctrl_c_keeps_the_results(config: Path, tmp_path: Path) -> None:
    body = {"model": "tiny", "messages": MESSAGES, "max_tokens": 400, "ignore_eos": True}
    source = write(tmp_path / "in", (line(f"r{i}", body=body) for i in range(500)))
    target = tmp_path / "out"
    command = [sys.executable, "-m", "cyllama", "batch", str(source), str(target), "-c", str(config)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as program:
        while not target.exists() or not target.read_bytes().count(b"\n"):
            assert program.poll() is None
            time.sleep(0.01)
        program.send_signal(signal.SIGINT)
        _, errors = program.communicate(timeout=60)
    assert program.returncode == 130 and "Traceback" not in errors
    assert all(item["response"]["status_code"] == 200 for item in read(target).values())


def test_processes_share_the_requests_and_are_started_again(config: Path, tmp_path: Path) -> None:
    """A worker that is killed loses no request."""
    source, target = write(tmp_path / "in", (line(f"r{i}") for i in range(60))), tmp_path / "out"
    workers: list[ProcessWorker] = []
    used: set[int | None] = set()

    def make(config: ServerConfig, parallel: int) -> list[ProcessWorker]:
        workers.extend(ProcessWorker(config, parallel) for _ in range(2))
        return workers

    def progress(now: Any) -> None:
        used.update(worker.pid for worker in workers)
        if now.done == 20:
            pid = workers[0].pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)

    found = run_file(ServerConfig.from_file(config), source, target, make, on_progress=progress)
    assert (found.done, found.failed) == (60, 0) and len(read(target)) == 60
    assert len(used - {None}) == 3


def test_a_request_that_ends_its_worker_gets_an_error(config: Path, tmp_path: Path) -> None:
    class Mortal(LocalWorker):
        async def request(self, url: str, body: bytes) -> Any:
            if b"poison" in body:
                raise ConnectionResetError("the worker has ended")
            return await super().request(url, body)

    poison = line("bad", body={"model": "tiny", "messages": [{"role": "user", "content": "poison"}]})
    source = write(tmp_path / "in", [line("a"), poison, line("b")])
    found = run_file(
        ServerConfig.from_file(config), source, tmp_path / "out", lambda config, n: [Mortal(config, n)], parallel=2
    )
    assert (found.total, found.failed) == (3, 1)
    bad = read(tmp_path / "out")["bad"]
    assert bad["response"] is None and bad["error"]["code"] == "worker_lost"


def test_a_worker_that_does_not_start_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "in", [line("a")])
    for more in ([], ["--workers", 2]):
        assert run(source, tmp_path / "out", "-m", "no-such-model", *more) == 1
        assert "no-such-model" in capsys.readouterr().err
    assert not (tmp_path / "out").read_bytes()


def test_results_are_those_of_the_server_over_http(config: Path, tmp_path: Path) -> None:
    """The same requests, with fields that have an effect: texts are equal, and so are errors."""
    import requests
    from server.running import running_server

    fields: list[dict[str, Any]] = [
        {"max_tokens": 4, "temperature": 0},
        {"max_tokens": 4, "seed": 5},
        {"max_tokens": 2, "temperature": 0, "logprobs": True, "top_logprobs": 2},
        {"max_tokens": 4, "temperature": 0, "response_format": {"type": "json_object"}},
        {"max_tokens": "4"},
        {"temperature": 9e9, "top_p": 3},
    ]
    bodies = [{"model": "tiny", "messages": MESSAGES, **item} for item in fields]
    source = write(tmp_path / "in", (line(str(i), body=body) for i, body in enumerate(bodies)))
    assert run(source, tmp_path / "out", "-c", config, "--parallel", 1) == 3
    found = read(tmp_path / "out")
    with running_server("--config", config) as server:
        for i, body in enumerate(bodies):
            over_http = requests.post(server.url + CHAT, json=body, timeout=60)
            item = found[str(i)]["response"]
            assert item["status_code"] == over_http.status_code
            for key in ("choices", "error"):
                assert item["body"].get(key) == over_http.json().get(key)


def test_a_lone_surrogate_fails_only_its_line(config: Path, tmp_path: Path) -> None:
    """The response is the same as over HTTP, and of all kinds of workers."""
    bad = line("bad", body={"model": "tiny", "max_tokens": 2, "messages": [{"role": "user", "content": "a\ud800b"}]})
    field = line("field", body={"model": "tiny", "max_tokens": 2, "messages": MESSAGES, "\ud800": 1})
    source = write(tmp_path / "in", [line("good"), bad, field])
    found = []
    for i, more in enumerate(([], ["--workers", 2])):
        assert run(source, tmp_path / str(i), "-c", config, "-q", *more) == 3
        found.append(read(tmp_path / str(i)))
        assert run(source, tmp_path / str(i), "-c", config, "-q", *more) == 3  # it can be continued
    assert found[0]["good"]["response"]["status_code"] == 200
    for name in ("bad", "field"):
        one, two = (item[name]["response"] for item in found)
        assert one["status_code"] == two["status_code"] == 400 and one["body"] == two["body"]
    assert found[0]["field"]["response"]["body"]["error"]["param"] == "\ud800"


def test_rejects_ids_with_lone_surrogates(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "in", [line("a"), line("\ud800"), line("\ud801")])
    assert run(source, tmp_path / "out", "-c", config) == 1
    text = capsys.readouterr().err
    assert "line 2: custom_id" in text and "line 3: custom_id" in text and not (tmp_path / "out").exists()
