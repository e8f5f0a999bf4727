"""Load, unload, pin and idle times of models, and the weights of adapters."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from server.running import Server, running_server

from cyllama import models
from cyllama.errors import OutOfMemoryError
from cyllama.llama import GGUFContext
from cyllama.pipelines import ModelPool
from cyllama.server import ModelEntry, ServerConfig
from cyllama.server.lifetimes import ModelLifetimes

TINY = "tiny-random-llama"
CONFIG = """
[models.plain]
model = "tiny-random-llama"
n_ctx = 512
n_parallel = 1

[models.pinned]
model = "tiny-random-llama"
n_ctx = 1024
n_parallel = 1
pin = true

[models.idle]
model = "tiny-random-llama"
n_ctx = 768
n_parallel = 1
idle_seconds = 0.2

[models.adapted]
model = "tiny-random-llama"
n_ctx = 512
n_parallel = 1
loras = ["{0}", "{1}"]
"""


def write_adapter(path: Path, seed: int) -> Path:
    """Write an adapter with random weights for the tiny model."""
    random = np.random.default_rng(seed)
    with GGUFContext.from_file(models.get(TINY)) as model:
        shapes = {info.name: info.shape for info in model.tensors() if info.name.endswith("attn_q.weight")}
    with GGUFContext.empty() as file:
        for key, value in (("type", "adapter"), ("architecture", "llama")):
            file.set(f"general.{key}", value)
        file.set("adapter.type", "lora")
        file.set("adapter.lora.alpha", 8.0)
        for name, (rows, columns) in shapes.items():
            file.add_tensor(f"{name}.lora_a", random.normal(size=(4, columns)).astype(np.float32))
            file.add_tensor(f"{name}.lora_b", random.normal(size=(rows, 4)).astype(np.float32))
        file.write(path)
    return path


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("control")
    adapters = [write_adapter(folder / f"{seed}.gguf", seed) for seed in (1, 2)]
    (folder / "models.toml").write_text(CONFIG.format(*adapters))
    with running_server("--config", folder / "models.toml") as found:
        yield found


def status(server: Server, name: str) -> str:
    info = server.get(f"/v1/models/{name}").json()
    assert info["loaded"] == (info["status"]["value"] == "loaded")
    return str(info["status"]["value"])


def complete(server: Server, name: str, **fields: Any) -> str:
    body = {"model": name, "prompt": "Hello", "max_tokens": 12, "temperature": 0, "ignore_eos": True, **fields}
    response = server.post("/v1/completions", {"cache_prompt": False, **body})
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["text"])


def test_loads_and_unloads(host: Server) -> None:
    assert status(host, "plain") == "unloaded"
    for _ in range(2):  # a second request changes nothing
        response = host.post("/models/load", {"model": "plain"})
        assert (response.status_code, response.json()) == (200, {"success": True})
        assert status(host, "plain") == "loaded"
    for _ in range(2):
        response = host.post("/models/unload", {"model": "plain"})
        assert (response.status_code, response.json()) == (200, {"success": True})
        assert status(host, "plain") == "unloaded"
    assert complete(host, "plain") and status(host, "plain") == "loaded"  # requests still load it
    assert status(host, "pinned") == "loaded"  # the same file with other settings


def test_configuration_pins_a_model(host: Server) -> None:
    info = host.get("/v1/models/pinned").json()
    assert info["loaded"] and info["pinned"] and not host.get("/v1/models/plain").json()["pinned"]
    assert host.post("/models/unload", {"model": "pinned"}).status_code == 200
    assert status(host, "pinned") == "unloaded"
    assert complete(host, "pinned") and host.get("/v1/models/pinned").json()["pinned"]


def test_requests_pin_and_unpin(host: Server) -> None:
    for pin in (True, False):
        assert host.post("/models/load", {"model": "plain", "pin": pin}).status_code == 200
        assert host.get("/v1/models/plain").json()["pinned"] is pin
    assert status(host, "plain") == "loaded"
    assert host.post("/models/load", {"model": "pinned", "pin": False}).status_code == 200
    assert complete(host, "pinned") and not host.get("/v1/models/pinned").json()["pinned"]
    assert host.post("/models/unload", {"model": "pinned"}).status_code == 200
    assert complete(host, "pinned") and host.get("/v1/models/pinned").json()["pinned"]  # as the configuration says
    assert host.post("/models/load", {"model": "pinned", "idle_seconds": 5}).status_code == 400


def test_idle_model_is_unloaded(host: Server) -> None:
    assert complete(host, "idle")
    host.wait_until(lambda: status(host, "idle") == "unloaded")
    assert complete(host, "idle")
    host.wait_until(lambda: host.get("/metrics").status_code == 200 and status(host, "idle") == "unloaded")


def test_request_changes_the_idle_time(host: Server) -> None:
    assert host.post("/models/load", {"model": "plain", "idle_seconds": 0.2}).status_code == 200
    host.wait_until(lambda: status(host, "plain") == "unloaded")
    assert host.post("/models/load", {"model": "plain", "idle_seconds": None}).status_code == 200
    assert status(host, "plain") == "loaded"


@pytest.mark.parametrize("path", ["/models/load", "/models/unload"])
@pytest.mark.parametrize(
    ("body", "code", "word"),
    [
        ({}, 400, "model"),
        ({"model": 1}, 400, "model"),
        ({"model": "nothing"}, 404, "nothing"),
        ({"model": "plain", "force": True}, 400, "force"),
        ([], 400, "object"),
    ],
)
def test_rejects_wrong_bodies(host: Server, path: str, body: Any, code: int, word: str) -> None:
    response = host.post(path, body)
    assert response.status_code == code and word in response.json()["error"]["message"]


@pytest.mark.parametrize(
    "fields", [{"pin": 1}, {"idle_seconds": "soon"}, {"idle_seconds": -1}, {"idle_seconds": 5, "pin": True}]
)
def test_rejects_wrong_values(host: Server, fields: dict[str, Any]) -> None:
    response = host.post("/models/load", {"model": "plain", **fields})
    assert response.status_code == 400 and next(iter(fields)) in response.json()["error"]["message"]


def test_model_in_use_is_not_unloaded() -> None:
    entry = ModelEntry(name="tiny", kind="llm", model=TINY, settings={"n_ctx": 256})
    with ModelPool() as pool:
        lifetimes = ModelLifetimes(pool)
        with lifetimes.use(entry, threading.Event()) as llm:
            assert not lifetimes.unload(entry)
            assert llm.complete("x", max_tokens=1).text is not None
        assert lifetimes.unload(entry) and not pool.loaded
        lifetimes.close()


def test_pinned_model_is_not_unloaded_for_memory() -> None:
    first, second = (
        ModelEntry(name=str(n_ctx), kind="llm", model=TINY, settings={"n_ctx": n_ctx, "n_parallel": 1})
        for n_ctx in (256, 512)
    )
    never = threading.Event()
    with ModelPool() as pool:
        with pool.use("llm", TINY, **second.settings):
            size = pool.loaded[0].size
    with ModelPool(memory=size * 3 // 2, wait=0) as pool:
        lifetimes = ModelLifetimes(pool)
        with lifetimes.use(first, never):
            lifetimes.pin(first)
        with pytest.raises(OutOfMemoryError), lifetimes.use(second, never):
            pass
        lifetimes.unpin(first)
        with lifetimes.use(second, never):
            assert [model.settings for model in pool.loaded] == [second.settings]
        lifetimes.close()


def test_sets_the_weights_of_adapters(host: Server) -> None:
    path = "/lora-adapters?model=adapted"
    assert [adapter["scale"] for adapter in host.get(path).json()] == [1, 1]
    texts = set()
    for scales in ([1, 1], [1, 0], [0, 1], [0, 0]):
        body = [{"id": number, "scale": scale} for number, scale in enumerate(scales) if scale]
        response = host.post(path, body)
        assert (response.status_code, response.json()) == (200, {"success": True})
        assert [adapter["scale"] for adapter in host.get(path).json()] == scales
        texts.add(complete(host, "adapted"))
    assert len(texts) == 4
    assert complete(host, "plain") in texts


@pytest.mark.parametrize(
    "body", [{}, [1], [{"id": 0}], [{"id": 7, "scale": 1}], [{"id": "0", "scale": 1}], [{"id": 0, "scale": "x"}], "x"]
)
def test_rejects_wrong_weights(host: Server, body: Any) -> None:
    assert host.post("/lora-adapters?model=adapted", body).status_code == 400


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("pin = 1", TypeError),
        ('preload = "yes"', TypeError),
        ("idle_seconds = -1", ValueError),
        ('idle_seconds = "1h"', TypeError),
        ("pin = true\nidle_seconds = 5", ValueError),
    ],
)
def test_rejects_wrong_configurations(tmp_path: Path, line: str, error: type[Exception]) -> None:
    file = tmp_path / "models.toml"
    file.write_text(f'[models.tiny]\nmodel = "{TINY}"\n{line}\n')
    with pytest.raises(error, match=line.split()[0]):
        ServerConfig.from_file(file)
