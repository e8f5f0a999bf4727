"""Models of a local Ollama store, and paths with ``~`` and environment variables."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cyllama import LLM, models
from cyllama.cli import main
from cyllama.errors import UnsupportedError
from cyllama.media.audio import AudioStream

HOST = "registry.example"
KINDS = {"model": "model", "projector": "projector", "adapter": "adapter", "params": "params"}


class Store:
    """A store as Ollama writes it: manifests by name, and files by their hash."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "blobs").mkdir(parents=True)
        (folder / "manifests").mkdir()

    def add(self, name: str, **files: bytes) -> None:
        layers = []
        for kind, data in files.items():
            digest = hashlib.sha256(data).hexdigest()
            (self.folder / "blobs" / f"sha256-{digest}").write_bytes(data)
            layers.append(
                {"mediaType": f"application/vnd.ollama.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}
            )
        path = self.folder / "manifests" / HOST / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"schemaVersion": 2, "layers": layers}))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "store"))
    found = Store(tmp_path / "store")
    found.add("library/tiny/latest", model=models.get("tiny-random-llama").read_bytes(), params=b"{}")
    found.add("library/tiny/1b", model=b"1b", template=b"{{ .Prompt }}")
    found.add("someone/seeing/latest", model=b"text", projector=b"eyes")
    found.add("library/tuned/latest", model=b"base", adapter=b"lora")
    return found


def test_names_select_a_file(store: Store) -> None:
    assert models.resolve("ollama:tiny").read_bytes()[:4] == b"GGUF"
    assert models.resolve("ollama:tiny:1b").read_bytes() == models.get("ollama:tiny:1b").read_bytes() == b"1b"
    assert models.resolve(f"ollama:{HOST}/library/tiny:1b").read_bytes() == b"1b"
    assert models.resolve("ollama:someone/seeing").read_bytes() == b"text"
    projector = models.projector("ollama:someone/seeing")
    assert projector is not None and projector.read_bytes() == b"eyes"
    assert models.projector("ollama:tiny") is None
    assert models.cached("ollama:tiny:1b") == models.resolve("ollama:tiny:1b") and models.cached("ollama:none") is None
    with LLM("ollama:tiny", n_ctx=64) as llm:
        assert llm.complete("a", max_tokens=2).usage.completion_tokens == 2


def test_names_of_the_list_are_accepted(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    names = [model.name for model in models.ollama_models()]
    assert names == ["ollama:tiny:1b", "ollama:tiny", "ollama:someone/seeing"]
    assert all(models.resolve(name).is_file() for name in names)
    assert main(["models", "list"]) == 0
    shown = capsys.readouterr().out
    assert all(f"cyllama chat -m {name}" in shown for name in names)


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("ollama:tini", FileNotFoundError, "did you mean ollama:tiny"),
        ("ollama:entirely-different-name", FileNotFoundError, "expected one of ollama:tiny"),
        ("ollama:tuned", UnsupportedError, "loras="),
        ("ollama:../../secret", ValueError, "expected ollama:NAME"),
        ("ollama:", ValueError, "expected ollama:NAME"),
        ("ollama:a/b/c/d/e", FileNotFoundError, "Ollama store"),
    ],
)
def test_errors_name_the_next_step(store: Store, name: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error) as caught:
        models.resolve(name)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_damaged_stores_are_reported(store: Store) -> None:
    manifest = store.folder / "manifests" / HOST / "library" / "odd" / "latest"
    manifest.parent.mkdir()
    for text in ("{", "[]", '{"layers": 3}', '{"layers": [3]}', " " * (2 << 20)):
        manifest.write_text(text)
        with pytest.raises(ValueError):
            models.resolve("ollama:odd")
        assert len(models.ollama_models()) == 3
    manifest.write_text(
        json.dumps({"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:../x"}]})
    )
    with pytest.raises(UnsupportedError):
        models.resolve("ollama:odd")
    shutil.rmtree(store.folder / "blobs")
    with pytest.raises(FileNotFoundError, match="ollama pull tiny"):
        models.resolve("ollama:tiny")
    shutil.rmtree(store.folder)
    with pytest.raises(FileNotFoundError, match="OLLAMA_MODELS"):
        models.resolve("ollama:tiny")


def test_known_name_names_the_store(store: Store) -> None:
    store.add("library/llama3.2/latest", model=b"x")
    with pytest.raises(FileNotFoundError, match=r"hf:\S+:Q4_K_M.*ollama:llama3.2"):
        models.resolve("llama3.2")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("llama3.2", "Llama-3.2-3B"),
        ("Llama-3.2", "Llama-3.2"),
        ("llama3.2:1b", "Llama-3.2-1B"),
        ("qwen2.5", "Qwen2.5-7B"),
        ("qwen2.5:0.5b", "Qwen2.5-0.5B"),
        ("Qwen2.5-0.5B-Instruct", "hf:Qwen/Qwen2.5-0.5B-Instruct-GGUF:Q4_K_M"),
        ("qwen2.5:14b", "Qwen2.5"),
        ("mistral", "Mistral-7B"),
        ("gemma3", "gemma-3"),
        ("phi-4", "phi-4"),
        ("deepseek-r1:14b", "DeepSeek-R1"),
        ("nomic-embed-text", "nomic-embed-text"),
        ("whisper-large-v3", "ggml-large-v3.bin"),
        ("sdxl", "stable-diffusion-xl"),
        ("sd-turbo", "stabilityai/sd-turbo"),
    ],
)
def test_known_names_are_found_on_the_hub(name: str, words: str) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        models.resolve(name)
    text = str(caught.value)
    assert words in text and "hf:" in text and "did you mean" not in text


def test_names_of_the_registry_come_first() -> None:
    for name in ("smolm2", "minilm-l5", "tinyen"):
        with pytest.raises(FileNotFoundError, match="did you mean"):
            models.resolve(name)


# ----------------------------------------------------------------------------------------- paths


def test_paths_expand_the_home_and_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MODELS", str(tmp_path / "models"))
    file = tmp_path / "models" / "tiny.gguf"
    file.parent.mkdir()
    shutil.copyfile(models.get("tiny-random-llama"), file)
    for path in ("~/models/tiny.gguf", "$MODELS/tiny.gguf", "${MODELS}/tiny.gguf", Path("~/models/tiny.gguf")):
        assert models.resolve(path) == file
    with LLM("~/models/tiny.gguf", n_ctx=64) as llm:
        llm.complete("a", max_tokens=1)
        llm.save_state("$MODELS/state.bin")
        llm.load_state("~/models/state.bin")
    soundfile.write(tmp_path / "a.wav", np.zeros(1600, np.int16), 16_000)
    AudioStream("~/a.wav")
    literal = tmp_path / "$MODELS"
    literal.write_bytes(b"literal")
    monkeypatch.chdir(tmp_path)
    assert models.resolve("$MODELS") == Path("$MODELS")  # a file of this very name


def test_missing_paths_name_the_next_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNSET", raising=False)
    (tmp_path / "model-q4.gguf").touch()
    cases = {
        "$UNSET/x.gguf": "UNSET is not set",
        str(tmp_path / "model-q5.gguf"): "did you mean .*model-q4.gguf",
        "https://huggingface.co/org/repo/resolve/main/a.gguf": "hf:org/repo/a.gguf",
        "https://example.com/a.gguf": "download the file",
    }
    for path, words in cases.items():
        with pytest.raises(FileNotFoundError, match=words):
            models.resolve(path)


def test_program_expands_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OUT", str(tmp_path))
    words = ["txt2img", "a red circle", "-m", "tiny-shapes", "--steps", "1", "-W", "64", "-H", "64", "-o", "$OUT/a.png"]
    assert main(words) == 0, capsys.readouterr().err
    assert (tmp_path / "a.png").is_file()
