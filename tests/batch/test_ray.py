"""A Ray cluster of two nodes on this machine: data, batches of requests, and the served fleet."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from data.sounds import JFK

from cyllama.batch import BatchCall, Chat, Complete, Embed, GenerateImages, Transcribe
from cyllama.cli import main
from cyllama.server import ServerConfig

if sys.version_info >= (3, 15):
    pytest.skip("Ray has no wheels for this version of Python", allow_module_level=True)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import ray
    from ray import serve
    from ray.cluster_utils import Cluster

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test
GIB = 1 << 30
NODE = {"num_cpus": 2, "memory": 3 * GIB, "object_store_memory": 100 << 20}
SETTINGS = {"n_ctx": 1024, "n_parallel": 1, "n_threads": 1}
CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing is sent
    found = Cluster(initialize_head=True, head_node_args=NODE)
    try:
        found.add_node(**NODE)
        ray.init(address=found.address, log_to_driver=False, logging_level="error")
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield found
        ray.shutdown()
    finally:
        found.shutdown()


def map_rows(call: BatchCall, rows: list[dict[str, Any]], batch_size: int) -> list[dict[str, Any]]:
    """Return the rows of a data set that a pool of two workers has computed, in their order."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    arguments: dict[str, Any] = {**call.ray_arguments(nodes), "batch_size": batch_size}
    assert arguments["concurrency"] == 2
    data = ray.data.from_items(rows, override_num_blocks=4).map_batches(type(call), **arguments)
    return sorted(data.take_all(), key=lambda row: row["id"])


CALLS: dict[str, tuple[BatchCall, str, list[Any]]] = {
    "chat": (
        Chat("tiny-random-llama", settings=SETTINGS, max_tokens=4, temperature=0),
        "messages",
        [f"question {i}" for i in range(12)],
    ),
    "embeddings": (Embed("minilm-l6", settings={"n_threads": 1}), "text", ["first", None, "third", "fourth"]),
    "transcription": (Transcribe("tiny.en", n_threads=1), "audio", [str(JFK), "no-such-file.wav"]),
    "images": (
        GenerateImages("tiny-shapes", width=64, height=64, steps=2, seed=1, settings={"n_threads": 1}),
        "prompt",
        ["a red circle", "a blue square"],
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_results_are_those_of_the_single_process(cluster: Cluster, name: str) -> None:
    call, column, cells = CALLS[name]
    alone = call({"id": list(range(len(cells))), column: cells})
    rows = map_rows(call, [{"id": i, column: cell} for i, cell in enumerate(cells)], batch_size=3)
    assert [row["id"] for row in rows] == alone["id"]
    for key in alone:
        for row, expected in zip(rows, alone[key], strict=True):
            found = row[key]
            assert (found is None) == (expected is None), row
            if key == "embedding" and expected is not None:
                assert list(found) == pytest.approx(expected, abs=1e-5)
            else:
                assert found == expected


class Mortal(Complete):
    """End the worker in the middle of a batch, once."""

    marker = ""

    def _row(self, model: Any, cells: Any, cancel: Any) -> Any:
        if cells[0].endswith(" 17") and not os.path.exists(self.marker):
            Path(self.marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super()._row(model, cells, cancel)


def test_each_row_comes_once_after_a_worker_was_killed(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "killed"
    monkeypatch.setattr(Mortal, "marker", str(marker))
    call = Mortal("tiny-random-llama", settings=SETTINGS, max_tokens=2, temperature=0)
    rows = map_rows(call, [{"id": i, "prompt": f"row {i}"} for i in range(40)], batch_size=5)
    assert marker.exists()
    assert [row["id"] for row in rows] == list(range(40))
    assert all(row["error"] is None and row["completion_tokens"] == 2 for row in rows)


def test_a_batch_of_requests_runs_on_the_cluster(cluster: Cluster, tmp_path: Path) -> None:
    lines = [
        {"custom_id": f"r{i}", "method": "POST", "url": CHAT, "body": {"messages": MESSAGES, "max_tokens": 2}}
        for i in range(30)
    ]
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("\n".join(map(json.dumps, lines)))
    arguments = ["-m", "tiny-random-llama", "--n-ctx", "1024", "--ray", cluster.address]
    assert main(["batch", str(source), str(target), *arguments, "--ordered"]) == 0
    found = [json.loads(line) for line in target.read_text().splitlines()]
    assert [item["custom_id"] for item in found] == [f"r{i}" for i in range(30)]
    assert all(item["response"]["status_code"] == 200 for item in found)


def test_an_actor_that_is_killed_loses_no_request(cluster: Cluster, tmp_path: Path) -> None:
    from cyllama.integrations.ray_batch import ray_workers
    from cyllama.server.batches.files import run_file

    config = ServerConfig.from_dict({"models": {"tiny-random-llama": {"n_ctx": 1024, "n_threads": 1}}})
    body = {"messages": MESSAGES, "max_tokens": 40, "ignore_eos": True}
    lines = [{"custom_id": f"r{i}", "method": "POST", "url": CHAT, "body": body} for i in range(60)]
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("\n".join(map(json.dumps, lines)))
    workers: list[Any] = []

    def make(config: ServerConfig, parallel: int) -> Any:
        workers.extend(ray_workers(cluster.address, config, parallel, 2))
        return workers

    def progress(now: Any) -> None:
        if now.done == 10:
            ray.kill(workers[0]._actor, no_restart=False)

    found = run_file(config, source, target, make, on_progress=progress, parallel=4)
    assert (found.done, found.failed) == (60, 0)


@pytest.fixture
def fleet(cluster: Cluster) -> Iterator[str]:
    """Serve two replicas, and return the address."""
    from cyllama.integrations.ray_serve import build_app

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
    models = {"tiny": {"model": "tiny-random-llama", "n_ctx": 1024, "n_parallel": 4, "n_threads": 1, "preload": True}}
    serve.run(build_app({"config": {"models": models}, "num_replicas": 2, "ray_actor_options": {"num_cpus": 0.5}}))
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        serve.shutdown()


def replicas(cluster: Cluster) -> list[int]:
    """Return the processes of the replicas of this cluster."""
    nodes = {info.process.pid for node in cluster.list_all_nodes() for info in node.all_processes["raylet"]}
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                title, parent = (
                    (entry / "cmdline").read_bytes(),
                    (entry / "stat").read_text().rsplit(")", 1)[1].split()[1],
                )
            except OSError:
                continue
            if title.startswith(b"ray::ServeReplica:") and int(parent) in nodes:
                found.append(int(entry.name))
    return found


def test_two_replicas_stream_and_survive_a_kill(cluster: Cluster, fleet: str) -> None:
    body = {"messages": MESSAGES, "max_tokens": 30, "ignore_eos": True}
    with requests.post(fleet + CHAT, json={**body, "stream": True}, stream=True, timeout=60) as response:
        assert response.status_code == 200
        parts = [line for line in response.iter_lines() if line.startswith(b"data: ")]
    assert len(parts) > 20 and parts[-1] == b"data: [DONE]"
    first = replicas(cluster)
    assert len(first) == 2
    failed, succeeded, stop = [], [], threading.Event()

    def load() -> None:
        while not stop.is_set():
            try:
                reply = requests.post(fleet + CHAT, json=body, timeout=60)
                (succeeded if reply.status_code == 200 else failed).append(time.monotonic())
            except requests.RequestException:
                failed.append(time.monotonic())

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: len(succeeded) > 10)
        os.kill(first[0], signal.SIGKILL)
        count = len(succeeded)
        wait_until(lambda: len(succeeded) > count + 40)
        wait_until(lambda: len(set(replicas(cluster)) - {first[0]}) == 2)
        count = len(succeeded)
        wait_until(lambda: len(succeeded) > count + 20)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert len(failed) <= len(threads)  # those that the replica was computing


def wait_until(condition: Any, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not become true"
        time.sleep(0.02)


def test_rejects_what_replicas_cannot_share() -> None:
    from cyllama.integrations.ray_serve import build_app

    models = {"models": {"tiny-random-llama": {}}}
    with pytest.raises(ValueError, match="batch_folder"):
        build_app({"config": {**models, "batch_folder": "x"}})
    with pytest.raises(ValueError, match="config is missing"):
        build_app({"num_replicas": 2})
