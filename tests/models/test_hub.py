"""Models of the Hugging Face hub: huggingface_hub talks to a hub on 127.0.0.1."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from cyllama import LLM, models
from cyllama.errors import DownloadError, ModelLoadError, UnsupportedError
from cyllama.llama import gguf_split
from cyllama.sd import StableDiffusion


def _hub_server() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hub_server", Path(__file__).with_name("hub_server.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["hub_server"] = module
    spec.loader.exec_module(module)
    return module


SERVER = _hub_server()
QUANTIZED = ("Q2_K", "Q4_K_M", "Q8_0", "F16")


@pytest.fixture(scope="module")
def server() -> Iterator:
    with SERVER.running_hub() as hub:
        yield hub


def use_endpoint(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Set what huggingface_hub reads from HF_ENDPOINT when it is imported."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture
def hub(server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from huggingface_hub import constants

    use_endpoint(monkeypatch, server.url)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    server.repositories = {
        "org/chat-GGUF": {"README.md": b"#", **{f"chat-{name.lower()}.gguf": name.encode() for name in QUANTIZED}},
        "org/folders": {f"{name}/big-{name}-0000{i}-of-00002.gguf": b"%d" % i for name in QUANTIZED for i in (1, 2)},
        "org/seeing": {"see-Q4_K_M.gguf": b"text", "mmproj-see-F32.gguf": b"32", "mmproj-see-f16.gguf": b"16"},
        "org/UD": {"m-UD-Q4_K_XL.gguf": b"ud", "m-Q4_K_M.gguf": b"plain", "m.imatrix.gguf": b"no"},
        "org/transformers": {"config.json": b"{}", "model.safetensors": b"x"},
        "org/voices": {"ggml-a.bin": b"a", "ggml-b.bin": b"b"},
        "org/two": {"a-Q4_K_M.gguf": b"a", "b-Q4_K_M.gguf": b"b"},
        "org/flux": {"model_index.json": b"{}", "transformer/diffusion_pytorch_model.safetensors": b""},
    }
    server.errors = {"org/gated": (403, "GatedRepo"), "org/broken": (503, "")}
    server.requests.clear()
    return server


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("hf:org/chat-GGUF", b"Q4_K_M"),
        ("org/chat-GGUF", b"Q4_K_M"),
        ("hf:org/chat-GGUF:latest", b"Q4_K_M"),
        ("hf:org/chat-GGUF:q8_0", b"Q8_0"),
        ("org/chat-GGUF:F16", b"F16"),
        ("hf:org/chat-GGUF@main:Q2_K", b"Q2_K"),
        ("hf:org/chat-GGUF/chat-q2_k.gguf", b"Q2_K"),
        ("hf:org/UD:UD-Q4_K_XL", b"ud"),
        ("hf:org/UD", b"plain"),
        ("hf:org/seeing", b"text"),
    ],
)
def test_names_select_a_file(hub, name: str, content: bytes) -> None:
    assert models.cached(models.check(name)) is None
    path = models.resolve(name)
    assert path.read_bytes() == content
    assert models.cached(models.check(name)) == path


def test_fetches_all_parts_of_a_split_model(hub) -> None:
    path = models.get("hf:org/folders:Q8_0")
    assert path.name == "big-Q8_0-00001-of-00002.gguf"
    assert sorted(file.read_bytes() for file in path.parent.iterdir()) == [b"1", b"2"]
    assert (
        models.get("hf:org/folders/F16/big-F16-00001-of-00002.gguf").with_name("big-F16-00002-of-00002.gguf").exists()
    )
    del hub.repositories["org/folders"]["Q2_K/big-Q2_K-00002-of-00002.gguf"]
    with pytest.raises(DownloadError, match="big-Q2_K-00002-of-00002.gguf is missing"):
        models.get("hf:org/folders:Q2_K")


def test_finds_the_projector(hub) -> None:
    found = models.projector("org/seeing")
    assert found is not None and found.read_bytes() == b"16"
    assert models.projector("hf:org/seeing/see-Q4_K_M.gguf") is None  # one file was named
    assert models.projector("hf:org/chat-GGUF") is None and models.projector("smollm2") is None


def test_loads_a_split_model_and_its_projector(hub, tmp_path: Path) -> None:
    gguf_split(models.get("tiny-random-llama"), tmp_path / "tiny", max_tensors=8)
    parts = sorted(tmp_path.glob("tiny-*.gguf"))
    hub.repositories["org/tiny"] = {path.name: path.read_bytes() for path in parts}
    with LLM("org/tiny", n_ctx=64) as llm:
        assert len(parts) > 1 and llm.complete("a", max_tokens=2).usage.completion_tokens == 2
    hub.repositories["org/tiny"]["mmproj-F16.gguf"] = b"no projector"
    with pytest.raises(ModelLoadError, match="mmproj-F16"):
        LLM("org/tiny", n_ctx=64)
    with LLM("org/tiny", n_ctx=64, embedding=True) as llm:  # needs no projector
        assert llm.embed("a").shape[-1] == 32


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("hf:org/chat-GGUF:Q5_K_M", ValueError, ["Q5_K_M", "Q4_K_M, Q8_0"]),
        ("hf:org/two", ValueError, []),
        ("hf:org/two:Q4_K_M", ValueError, ["2 models", "hf:org/two/a-Q4_K_M.gguf"]),
        ("hf:org/chat-GGUF/chat-q4.gguf", DownloadError, ["no file chat-q4.gguf", "did you mean chat-q"]),
        ("hf:org/transformers", DownloadError, ["no GGUF file", "transformers-GGUF"]),
        ("hf:org/voices", DownloadError, ["ggml-a.bin, ggml-b.bin", "hf:org/voices/FILE"]),
        ("hf:org/flux", DownloadError, ["unet/diffusion_pytorch_model.safetensors"]),
        ("hf:org/none", DownloadError, ["no repository org/none", "HF_TOKEN"]),
        ("org/none", FileNotFoundError, ["no such file: org/none", "no repository"]),
        ("hf:org/gated", DownloadError, ["agreement", "HF_TOKEN"]),
        ("hf:org/broken", DownloadError, ["cannot be reached", "local file"]),
        ("hf:org", ValueError, ["hf:organisation/repository"]),
        ("hf:org/a..b--c/..", ValueError, ["hf:organisation/repository"]),
        ("hf:org/repo:", ValueError, ["hf:organisation/repository"]),
        ("hf:org/m.gguf", ValueError, ["hf:organisation/repository"]),
    ],
)
def test_errors_name_the_next_step(hub, name: str, error: type[Exception], words: list[str]) -> None:
    if name == "hf:org/two":  # the first of equals
        assert models.resolve(name).read_bytes() == b"a"
        return
    with pytest.raises(error) as caught:
        models.resolve(name)
    text = str(caught.value)
    assert "\n" not in text and all(word in text for word in words), text


def test_uses_the_cache_without_a_network(hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    path = models.get("hf:org/chat-GGUF:Q8_0")
    projector = models.get("org/seeing") and models.projector("org/seeing")
    use_endpoint(monkeypatch, "http://127.0.0.1:9")
    assert models.get("hf:org/chat-GGUF:Q8_0") == path
    assert models.get("hf:org/chat-GGUF") == path  # the only one that is here
    assert models.projector("org/seeing") == projector
    with pytest.raises(DownloadError, match="cannot be reached"):
        models.get("hf:org/chat-GGUF/chat-q2_k.gguf")
    with pytest.raises(DownloadError, match="cannot be reached"):
        models.get("hf:org/chat-GGUF:Q2_K")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert models.get("hf:org/chat-GGUF:Q8_0") == path
    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE"):
        models.get("hf:org/UD")
    assert next((name, size) for name, size, _ in models.hub_models()) == ("hf:org/chat-GGUF/chat-q8_0.gguf", 4)


def test_reports_progress(hub) -> None:
    seen = []
    models.get("hf:org/chat-GGUF:Q8_0", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (4, 4)


def test_progress_can_stop_a_download(hub) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        models.get("hf:org/chat-GGUF:Q8_0", progress=stop)
    assert models.cached("hf:org/chat-GGUF:Q8_0") is None


def test_fetches_the_layout_of_diffusers(hub) -> None:
    files = ("unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors", "model_index.json")
    more = ("unet/diffusion_pytorch_model.fp16.safetensors", "model.safetensors", "text_encoder/model.safetensors")
    hub.repositories["org/sd"] = dict.fromkeys((*files, *more), b"{}")
    folder = models.resolve("org/sd")
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == {*files, "text_encoder/model.safetensors"}
    with pytest.raises(ModelLoadError):  # it is no model, but it was found
        StableDiffusion("org/sd")


def test_program_pulls_and_lists(hub, tmp_path: Path) -> None:
    environment = os.environ | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "OLLAMA_MODELS": str(tmp_path),
    }
    path = os.pathsep.join(entry for entry in sys.path if entry)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cyllama", *words]
        return subprocess.run(
            command, capture_output=True, text=True, env=environment | {"PYTHONPATH": path}, check=False
        )

    done = run("pull", "org/seeing")
    assert done.returncode == 0, done.stderr
    assert [Path(line).read_bytes() for line in done.stdout.splitlines()] == [b"text", b"16"]
    shown = run("models", "list").stdout
    assert "cyllama chat -m hf:org/seeing/see-Q4_K_M.gguf" in shown and "projector" in shown
    failed = run("chat", "hi", "-hf", "org/none")
    assert failed.returncode == 1 and len(failed.stderr.splitlines()) == 1 and "no repository org/none" in failed.stderr


def test_repository_needs_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UnsupportedError, match="pip install huggingface_hub"):
        models.resolve("hf:org/repo:Q4_K_M")
    with pytest.raises(FileNotFoundError, match=r"no such file: org/repo.*pip install huggingface_hub"):
        models.resolve("org/repo")
    assert models.cached("hf:org/repo") is None
