"""LoRA adapters and control vectors, generated for the tiny model."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cyllama.errors import ClosedError, InUseError, ModelLoadError
from cyllama.llama import (
    CommonParams,
    ControlVector,
    GGUFContext,
    LlamaAdapterLora,
    LlamaBatch,
    LlamaContext,
    LlamaContextParams,
    LlamaModel,
    load_control_vector,
)

RANK = 4


def write_lora(path: Path, model: Path, *, change: dict[str, Any] | None = None, tensors: Any = None) -> Path:
    """A LoRA of rank 4 for the feed-forward layers of a llama model, from a fixed seed."""
    source, adapter = GGUFContext.from_file(model), GGUFContext.empty()
    values = {
        "general.type": "adapter", "general.architecture": source["general.architecture"], "adapter.type": "lora",
        "adapter.lora.alpha": 8.0, "general.name": "ünï", **(change or {}),
    }  # fmt: skip
    for key, value in values.items():
        if value is not None:
            adapter[key] = value
    random = np.random.default_rng(0)
    if tensors is None:
        tensors = {}
        for info in source.tensors():
            if "ffn_up" in info.name or "attn_q" in info.name:
                rows, columns = info.shape
                tensors[f"{info.name}.lora_a"] = random.normal(size=(RANK, columns)).astype(np.float32)
                tensors[f"{info.name}.lora_b"] = random.normal(size=(rows, RANK)).astype(np.float32)
    for name, data in tensors.items():
        adapter.add_tensor(name, data)
    adapter.write(path)
    return path


@pytest.fixture
def lora(tiny_path: Path, tmp_path: Path) -> Path:
    return write_lora(tmp_path / "lora.gguf", tiny_path)


def logits(ctx: LlamaContext) -> np.ndarray:
    ctx.memory.clear()
    ctx.decode(LlamaBatch.from_tokens([1, 5, 9, 100]))
    return np.array(ctx.get_logits_ith(-1))


# ---------------------------------------------------------------------------------------- LoRA


def test_adapter_changes_the_logits(tiny_model: LlamaModel, tiny_ctx: LlamaContext, lora: Path) -> None:
    before = logits(tiny_ctx)
    adapter = LlamaAdapterLora(tiny_model, lora)
    assert np.array_equal(logits(tiny_ctx), before), "loading alone changes nothing"
    tiny_ctx.set_adapters_lora([(adapter, 1.0)])
    whole = logits(tiny_ctx)
    tiny_ctx.set_adapters_lora([(adapter, 0.5)])
    half = logits(tiny_ctx)
    tiny_ctx.set_adapters_lora([(adapter, 0.0)])
    none = logits(tiny_ctx)
    tiny_ctx.set_adapters_lora([])
    assert np.abs(whole - before).max() > 1e-3 < np.abs(half - whole).max()
    assert np.allclose(none, before, atol=1e-4)
    assert np.array_equal(logits(tiny_ctx), before)


def test_adapter_equals_merged_weights(tiny_path: Path, tmp_path: Path, lora: Path) -> None:
    """An adapter has the effect of adding the product of its matrices to the weights."""
    source, adapter, merged = GGUFContext.from_file(tiny_path), GGUFContext.from_file(lora), GGUFContext.empty()
    merged.copy_from(source)
    names = {info.name for info in adapter.tensors()}
    for info in source.tensors():
        data = source.tensor_data(info.name)
        if f"{info.name}.lora_a" in names:
            low, high = adapter.tensor_data(f"{info.name}.lora_a"), adapter.tensor_data(f"{info.name}.lora_b")
            data = data + (8.0 / RANK) * (high @ low)
        merged.add_tensor(info.name, data.astype(source.tensor_data(info.name).dtype))
    merged.write(tmp_path / "merged.gguf")
    params = LlamaContextParams(n_ctx=64, n_threads=1, n_threads_batch=1)
    with LlamaModel(tmp_path / "merged.gguf") as model, LlamaContext(model, params) as ctx:
        expected = logits(ctx)
    with LlamaModel(tiny_path) as model, LlamaAdapterLora(model, lora) as lora_adapter:
        with LlamaContext(model, params) as ctx:
            ctx.set_adapters_lora([(lora_adapter, 1.0)])
            found = logits(ctx)
            ctx.set_adapters_lora([])
    assert np.allclose(found, expected, atol=0.02 * np.abs(expected).max())


def test_metadata(tiny_model: LlamaModel, lora: Path) -> None:
    adapter = LlamaAdapterLora(tiny_model, lora)
    assert adapter.metadata() == {
        "general.type": "adapter", "general.architecture": "llama", "adapter.type": "lora",
        "adapter.lora.alpha": adapter.meta_val_str("adapter.lora.alpha"), "general.name": "ünï",
    }  # fmt: skip
    assert float(adapter.meta_val_str("adapter.lora.alpha")) == 8.0
    assert adapter.meta_val_str("no.such.key") is None
    assert adapter.alora_invocation_tokens == []


def test_alora_invocation_tokens(tiny_model: LlamaModel, tiny_path: Path, tmp_path: Path) -> None:
    tokens = np.array([5, 6, 7], np.uint32)
    path = write_lora(tmp_path / "alora.gguf", tiny_path, change={"adapter.alora.invocation_tokens": tokens})
    assert LlamaAdapterLora(tiny_model, path).alora_invocation_tokens == [5, 6, 7]


def test_from_fileobj(tiny_model: LlamaModel, lora: Path) -> None:
    from_file = LlamaAdapterLora(tiny_model, lora).metadata()
    assert LlamaAdapterLora.from_fileobj(tiny_model, io.BytesIO(lora.read_bytes())).metadata() == from_file
    with lora.open("rb") as f:
        assert LlamaAdapterLora.from_fileobj(tiny_model, f).metadata() == from_file
    with pytest.raises(ModelLoadError):
        LlamaAdapterLora.from_fileobj(tiny_model, io.BytesIO(b"nonsense"))


def test_model_stays_open_while_an_adapter_exists(tiny_path: Path, lora: Path) -> None:
    model = LlamaModel(tiny_path)
    adapter = LlamaAdapterLora(model, lora)
    with pytest.raises(InUseError):
        model.close()
    adapter.close()
    adapter.close()
    with pytest.raises(ClosedError):
        adapter.metadata()
    model.close()
    with pytest.raises(ClosedError):
        LlamaAdapterLora(model, lora)


def test_adapter_in_use_cannot_be_closed(tiny_model: LlamaModel, tiny_ctx: LlamaContext, lora: Path) -> None:
    adapter = LlamaAdapterLora(tiny_model, lora)
    tiny_ctx.set_adapters_lora([(adapter, 1.0)])
    expected = logits(tiny_ctx)
    with pytest.raises(InUseError):
        adapter.close()
    del adapter
    assert np.array_equal(logits(tiny_ctx), expected)


def test_closing_a_context_releases_its_adapters(tiny_model: LlamaModel, lora: Path) -> None:
    adapter = LlamaAdapterLora(tiny_model, lora)
    with LlamaContext(tiny_model, LlamaContextParams(n_ctx=64)) as ctx:
        ctx.set_adapters_lora([(adapter, 1.0)])
    adapter.close()


def test_rejects_adapter_of_another_model(
    smol_model: LlamaModel, tiny_path: Path, tiny_ctx: LlamaContext, lora: Path
) -> None:
    with pytest.raises(ModelLoadError, match="shape|exist"):
        LlamaAdapterLora(smol_model, lora)
    with LlamaModel(tiny_path) as twin, LlamaAdapterLora(twin, lora) as adapter:
        with pytest.raises(ValueError, match="another model"):
            tiny_ctx.set_adapters_lora([(adapter, 1.0)])


ONE = np.ones((RANK, 32), np.float32)


@pytest.mark.parametrize(
    "what",
    [
        {"change": {"general.type": "model"}}, {"change": {"general.type": None}}, {"change": {"general.type": 5}},
        {"change": {"general.architecture": "gpt2"}}, {"change": {"adapter.type": "other"}},
        {"change": {"adapter.lora.alpha": "8"}}, {"change": {"adapter.alora.invocation_tokens": [1, 2]}},
        {"change": {"adapter.alora.invocation_tokens": 5}},
        {"tensors": {"nonsense": ONE}}, {"tensors": {"blk.0.ffn_up.weight.lora_a": ONE}},
        {"tensors": {"no.such.lora_a": ONE, "no.such.lora_b": ONE}},
        {"tensors": {"blk.0.ffn_up.weight.lora_a": ONE, "blk.0.ffn_up.weight.lora_b": ONE}},
    ],
)  # fmt: skip
def test_rejects_invalid_adapters(
    tiny_model: LlamaModel, tiny_path: Path, tmp_path: Path, what: dict[str, Any]
) -> None:
    path = write_lora(tmp_path / "bad.gguf", tiny_path, **what)
    with pytest.raises(ModelLoadError) as caught:
        LlamaAdapterLora(tiny_model, path)
    assert caught.value.log


def test_rejects_invalid_files(tiny_model: LlamaModel, tiny_path: Path, lora: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        LlamaAdapterLora(tiny_model, tmp_path / "none.gguf")
    with pytest.raises(TypeError):
        LlamaAdapterLora(tiny_model)
    with pytest.raises(ModelLoadError):
        LlamaAdapterLora(tiny_model, tiny_path)
    data = lora.read_bytes()
    for size in (0, 3, 30, 500, len(data) - 100):
        (tmp_path / "short.gguf").write_bytes(data[:size])
        with pytest.raises(ModelLoadError):
            LlamaAdapterLora(tiny_model, tmp_path / "short.gguf")


# ------------------------------------------------------------------------------- control vectors


def write_vector(path: Path, rows: dict[str, Any]) -> Path:
    context = GGUFContext.empty()
    context["general.architecture"] = "controlvector"
    for name, data in rows.items():
        context.add_tensor(name, np.asarray(data))
    context.write(path)
    return path


def test_control_vectors_are_added(tmp_path: Path) -> None:
    one = write_vector(tmp_path / "1.gguf", {"direction.1": np.ones(8, "f4"), "direction.3": np.full(8, 3, "f4")})
    two = write_vector(tmp_path / "2.gguf", {"direction.2": np.full(8, 2, "f4"), "direction.1": np.ones(8, "f4")})
    vector = load_control_vector(one)
    assert isinstance(vector, ControlVector) and vector.data.dtype == np.float32
    assert vector.data[:, 0].tolist() == [1, 0, 3]
    assert load_control_vector([(one, 2.0), (two, -0.5)]).data[:, 5].tolist() == [1.5, -1, 6]


def test_control_vector_changes_the_logits(tiny_model: LlamaModel, tiny_ctx: LlamaContext, tmp_path: Path) -> None:
    before = logits(tiny_ctx)
    path = write_vector(tmp_path / "v.gguf", {"direction.1": np.linspace(-9, 9, tiny_model.n_embd, dtype="f4")})
    tiny_ctx.set_adapter_cvec(load_control_vector(path).data)
    assert np.abs(logits(tiny_ctx) - before).max() > 1e-3
    tiny_ctx.set_adapter_cvec(None)
    assert np.array_equal(logits(tiny_ctx), before)


@pytest.mark.parametrize(
    "rows",
    [
        {}, {"direction.0": np.ones(8, "f4")}, {"direction.-1": np.ones(8, "f4")}, {"direction": np.ones(8, "f4")},
        {"direction.x": np.ones(8, "f4")}, {"other.1": np.ones(8, "f4")}, {"direction.1": np.ones(8, "f2")},
        {"direction.1": np.ones((2, 8), "f4")}, {"direction.1": np.ones(8, "f4"), "direction.2": np.ones(9, "f4")},
        {"direction.357913942": np.ones(12, "f4")}, {"direction.2147483647": np.ones(8, "f4")},
        {"direction.99999999999": np.ones(8, "f4")}, {"direction.1.5": np.ones(8, "f4")},
    ],
)  # fmt: skip
def test_rejects_invalid_control_vectors(rows: dict[str, Any], tmp_path: Path) -> None:
    """357913942 * 12 overflows in the engine, which then writes out of bounds."""
    with pytest.raises(ModelLoadError):
        load_control_vector(write_vector(tmp_path / "bad.gguf", rows))


def test_rejects_invalid_arguments(tmp_path: Path) -> None:
    good = write_vector(tmp_path / "v.gguf", {"direction.1": np.ones(8, "f4")})
    wide = write_vector(tmp_path / "w.gguf", {"direction.1": np.ones(9, "f4")})
    with pytest.raises(FileNotFoundError):
        load_control_vector(tmp_path / "none.gguf")
    with pytest.raises(ValueError):
        load_control_vector([])
    with pytest.raises(ValueError):
        load_control_vector([(good, float("nan"))])
    with pytest.raises(TypeError):
        load_control_vector([(good, "1")])
    with pytest.raises(ModelLoadError):
        load_control_vector([(good, 1.0), (wide, 1.0)])


def test_adapters_in_common_params(tmp_path: Path) -> None:
    params = CommonParams()
    params.lora_adapters = [(tmp_path / "ä.gguf", 0.5)]
    params.control_vectors = [(str(tmp_path / "v.gguf"), -2.0)]
    assert params.lora_adapters == [(str(tmp_path / "ä.gguf"), 0.5)]
    assert params.control_vectors == [(str(tmp_path / "v.gguf"), -2.0)]
