"""Ollama's protocol about models: list, show, pull, delete; with its official client."""

from __future__ import annotations

import os
from collections.abc import Iterator

import ollama
import pytest
from server.conftest import KEY
from server.running import Server, running_server

import cyllama

FRANCE = [{"role": "user", "content": "Please tell me the capital of France."}]


@pytest.fixture(scope="module")
def api(server: Server) -> Iterator[ollama.Client]:
    with ollama.Client(host=server.url, headers={"Authorization": f"Bearer {KEY}"}) as found:
        yield found


def test_lists_and_shows_models(api: ollama.Client) -> None:
    api.chat("smol", [])
    listed = {model.model: model for model in api.list().models}
    assert {"smol", "tools", "minilm", "reranker"} <= set(listed) and "speech" not in listed
    smol = listed["smol"]
    assert smol.size == 98_362_432 and smol.digest.startswith("b179c9523d0e") and smol.modified_at is not None
    assert smol.details.family == "llama" and smol.details.parameter_size == "134.5M"
    assert smol.details.quantization_level == "Q4_1" and smol.details.format == "gguf"
    shown = api.show("smol")
    assert "completion" in shown.capabilities and "im_start" in shown.template
    assert shown.modelinfo["general.architecture"] == "llama"
    assert shown.modelinfo["llama.context_length"] == 8192
    assert shown.modelinfo["tokenizer.ggml.tokens"] is None and "n_ctx 8192" in shown.parameters.splitlines()
    assert api.show("minilm").capabilities == ["embedding"]
    tools = api.show("tools")
    assert "tools" in tools.capabilities and "<tools>" in tools.template and "/" not in tools.parameters


def test_shows_arrays_and_tensors_with_verbose(server: Server, key: dict[str, str]) -> None:
    shown = server.post("/api/show", {"model": "smol", "verbose": True}, headers=key).json()
    assert len(shown["model_info"]["tokenizer.ggml.tokens"]) == 49152
    assert {"name", "type", "shape"} == set(shown["tensors"][0])


def test_ps_lists_loaded_models(api: ollama.Client) -> None:
    api.chat("smol", FRANCE, options={"num_predict": 1}, keep_alive="1h")
    running = {model.name: model for model in api.ps().models}
    assert running["smol"].size > 98_000_000 and running["smol"].context_length >= 1024
    assert running["smol"].expires_at.year < 9999
    api.chat("smol", FRANCE, options={"num_predict": 1}, keep_alive=-1)
    assert {model.name: model for model in api.ps().models}["smol"].expires_at.year == 9999


def test_model_is_unloaded_after_a_request_that_keeps_it_0_seconds(server: Server, api: ollama.Client) -> None:
    def is_running() -> bool:
        return "tiny" in [model.name for model in api.ps().models]

    api.generate("tiny", "Hi", options={"num_predict": 1}, keep_alive=0)
    server.wait_until(lambda: not is_running())
    api.generate("tiny", "Hi", options={"num_predict": 1})  # without the time of the request before
    assert is_running()
    assert {model.name: model for model in api.ps().models}["tiny"].expires_at.year == 9999


def test_version(server: Server, key: dict[str, str]) -> None:
    assert server.get("/api/version", headers=key).json() == {"version": cyllama.__version__}


# ----------------------------------------------------------------------------------- pull and delete

PULLING = """
allow_pull = true

[models.tiny]
model = "tiny-random-llama"
n_ctx = 512
n_parallel = 1
"""


@pytest.fixture(scope="module")
def pulling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start a server with its own cache and an index that cannot be reached."""
    folder = tmp_path_factory.mktemp("pulling")
    (folder / "models.toml").write_text(PULLING)
    environment = {"CYLLAMA_CACHE": str(folder / "cache"), "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}
    environment |= {"HF_HUB_OFFLINE": "1", "PIP_CONFIG_FILE": os.devnull, "PIP_EXTRA_INDEX_URL": ""}
    with running_server("--config", folder / "models.toml", environment=environment) as found:
        yield found


@pytest.fixture
def client(pulling: Server) -> Iterator[ollama.Client]:
    with ollama.Client(host=pulling.url) as found:
        yield found


def test_pulls_and_deletes_a_model(client: ollama.Client) -> None:
    """The model is generated from a file of the checkout, so no network is needed."""
    statuses = [line.status for line in client.pull("vocab-llama-spm", stream=True)]
    assert statuses[0] == "pulling manifest" and statuses[-1] == "success"
    assert "vocab-llama-spm" in [model.model for model in client.list().models]
    assert client.pull("tiny").status == "success"  # one of the configuration
    assert client.delete("vocab-llama-spm").status == "success"
    assert "vocab-llama-spm" not in [model.model for model in client.list().models]
    with pytest.raises(ollama.ResponseError) as caught:
        client.delete("vocab-llama-spm")
    assert caught.value.status_code == 404


def test_pull_reports_a_missing_network(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError) as caught:
        client.pull("smollm2-135m-instruct")
    assert caught.value.status_code == 502 and "smollm2" in caught.value.error
    with pytest.raises(ollama.ResponseError, match="smollm2"):
        list(client.pull("smollm2-135m-instruct", stream=True))
    with pytest.raises(ollama.ResponseError) as hub:
        client.pull("hf:organisation/repository/file.gguf")
    assert hub.value.status_code in (400, 502)
    assert [model.model for model in client.list().models] == ["tiny"]


@pytest.mark.parametrize("name", ["nothing", "hf:organisation/repository/file.bin", "vision-dinov2s", "/etc/passwd"])
def test_pull_refuses_what_is_not_a_model(pulling: Server, name: str) -> None:
    assert pulling.post("/api/pull", {"model": name}).status_code in (400, 404)


def test_models_of_the_configuration_are_not_deleted(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError) as caught:
        client.delete("tiny")
    assert caught.value.status_code == 403


def test_pull_needs_the_permission_of_the_configuration(api: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError) as caught:
        api.pull("tiny-random-llama")
    assert caught.value.status_code == 403 and "allow_pull" in caught.value.error
