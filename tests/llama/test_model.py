"""Load models, read their properties, save them."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import numpy as np
import pytest

import cyllama
from cyllama.errors import CancelledError, EngineError, ModelLoadError, UnsupportedError
from cyllama.llama import (
    FileType,
    GGUFContext,
    LlamaBatch,
    LlamaContext,
    LlamaContextParams,
    LlamaModel,
    LlamaModelParams,
    LlamaQuantizeParams,
    RopeType,
    llama_chat_apply_template,
    llama_chat_builtin_templates,
    llama_model_quantize,
    llama_split_path,
    llama_split_prefix,
)


def first_logits(model: LlamaModel) -> np.ndarray:
    with LlamaContext(model, LlamaContextParams(n_ctx=64)) as ctx:
        ctx.decode(LlamaBatch.from_tokens([1, 5, 9]))
        return ctx.get_logits_ith(-1)


def test_properties_of_smollm2(smol_model: LlamaModel) -> None:
    assert smol_model.n_vocab == 49152
    assert smol_model.n_ctx_train == 8192
    assert (smol_model.n_embd, smol_model.n_embd_inp, smol_model.n_embd_out) == (576, 576, 576)
    assert (smol_model.n_layer, smol_model.n_head, smol_model.n_head_kv) == (30, 9, 3)
    assert (smol_model.n_swa, smol_model.n_layer_nextn) == (0, 0)
    assert smol_model.n_params == 134_515_008
    assert 90e6 < smol_model.size < 100e6
    assert smol_model.ftype is FileType.Q4_1
    assert smol_model.ftype_name == "Q4_1"
    assert smol_model.rope_type is RopeType.NORM
    assert smol_model.rope_freq_scale_train == 1.0
    assert smol_model.has_decoder and not smol_model.has_encoder
    assert not (smol_model.is_recurrent or smol_model.is_hybrid or smol_model.is_diffusion)
    assert smol_model.decoder_start_token is None
    assert "Q4_1" in smol_model.desc


def test_metadata(smol_model: LlamaModel) -> None:
    metadata = smol_model.metadata()
    assert metadata["general.architecture"] == "llama"
    assert metadata["llama.block_count"] == "30"
    assert smol_model.meta_val_str("llama.context_length") == "8192"
    assert smol_model.meta_val_str("no.such.key") is None
    template = smol_model.chat_template()
    assert "<|im_start|>" in template
    assert metadata["tokenizer.chat_template"] == template  # longer than one buffer
    assert smol_model.chat_template("tool_use") is None


def test_progress_rises_to_one(tiny_path: Path) -> None:
    seen: list[float] = []
    LlamaModel(tiny_path, LlamaModelParams(progress_callback=lambda p: seen.append(p)))
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_progress_returning_false_cancels(smol_path: Path) -> None:
    with pytest.raises(CancelledError):
        LlamaModel(smol_path, LlamaModelParams(progress_callback=lambda p: False))


def test_exception_of_progress_is_raised(smol_path: Path) -> None:
    def fail(progress: float) -> bool:
        raise KeyError("from the callback")

    with pytest.raises(KeyError, match="from the callback") as caught:
        LlamaModel(smol_path, LlamaModelParams(progress_callback=fail))
    assert caught.traceback[-1].name == "fail"


def test_cancel_before_loading(smol_path: Path) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(CancelledError):
        LlamaModel(smol_path, cancel=cancel)


@pytest.mark.parametrize("mode", ["none", "mmap", "auto", "direct_io"])
def test_load_modes_load_the_same_model(tiny_path: Path, tiny_model: LlamaModel, mode: str) -> None:
    model = LlamaModel(tiny_path, LlamaModelParams(load_mode=mode, check_tensors=True, use_extra_bufts=False))
    np.testing.assert_allclose(first_logits(model), first_logits(tiny_model), rtol=1e-4, atol=1e-4)


def test_vocab_only(tiny_path: Path) -> None:
    model = LlamaModel(tiny_path, LlamaModelParams(vocab_only=True))
    assert model.vocab.tokenize("Hello", add_special=False)
    with pytest.raises(EngineError):
        LlamaContext(model)


def test_kv_overrides(tiny_path: Path) -> None:
    model = LlamaModel(tiny_path, LlamaModelParams(kv_overrides={"llama.context_length": 123}))
    assert model.n_ctx_train == 123


def test_from_fileobj(tiny_path: Path, tiny_model: LlamaModel, tmp_path: Path) -> None:
    data = tiny_path.read_bytes()
    inside = tmp_path / "archive.bin"
    inside.write_bytes(b"x" * 4096 + data)
    with inside.open("rb") as f:
        f.seek(4096)
        from_archive = LlamaModel.from_fileobj(f)
        assert f.tell() == 4096
    from_memory = LlamaModel.from_fileobj(io.BytesIO(data))
    for model in (from_archive, from_memory):
        np.testing.assert_allclose(first_logits(model), first_logits(tiny_model), rtol=1e-4, atol=1e-4)
    with pytest.raises(ModelLoadError):
        LlamaModel.from_fileobj(io.BytesIO(b"not a model" * 100))


def test_save_to_file(tiny_model: LlamaModel, tmp_path: Path) -> None:
    path = tmp_path / "saved.gguf"
    tiny_model.save_to_file(path)
    assert [p.name for p in tmp_path.iterdir()] == ["saved.gguf"]
    np.testing.assert_allclose(first_logits(LlamaModel(path)), first_logits(tiny_model), rtol=1e-4, atol=1e-4)
    with pytest.raises(OSError):
        tiny_model.save_to_file(tmp_path / "no" / "folder.gguf")


def test_saves_weights_that_a_kernel_reordered(smol_path: Path, tmp_path: Path) -> None:
    path, saved = tmp_path / "q8.gguf", tmp_path / "saved.gguf"
    llama_model_quantize(smol_path, path, LlamaQuantizeParams(ftype="q8_0", allow_requantize=True))
    with LlamaModel(path) as model:
        model.save_to_file(saved)
    with GGUFContext.from_file(path) as original, GGUFContext.from_file(saved) as written:
        names = {tensor.name for tensor in original.tensors()}
        assert names == {tensor.name for tensor in written.tensors()}
        assert all((original.tensor_data(name) == written.tensor_data(name)).all() for name in names)
    with path.open("rb") as file, LlamaModel.from_fileobj(file) as model:
        if cyllama.build_info()["cpu"]["kernels"]:
            with pytest.raises(UnsupportedError, match="use_extra_bufts"):
                model.save_to_file(saved)
    with path.open("rb") as file, LlamaModel.from_fileobj(file, LlamaModelParams(use_extra_bufts=False)) as model:
        model.save_to_file(saved)


def advised_bytes() -> int:
    """Return the size of the mappings of this process for which large pages were asked."""
    total = size = 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, _, values = line.partition(":")
        size = int(values.split()[0]) * 1024 if name == "Size" else size
        total += size if name == "VmFlags" and "hg" in values.split() else 0
    return total


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="the system has no large pages, or is not Linux"
)
def test_asks_for_large_pages_for_reordered_weights(smol_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "q8.gguf"
    llama_model_quantize(smol_path, path, LlamaQuantizeParams(ftype="q8_0", allow_requantize=True))
    before = advised_bytes()
    with LlamaModel(path):
        found = advised_bytes() - before
    assert found > 90_000_000 if cyllama.build_info()["cpu"]["kernels"] else found == 0


def test_quantize(smol_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "q8.gguf"
    llama_model_quantize(smol_path, path, LlamaQuantizeParams(ftype="q8_0", allow_requantize=True))
    assert [p.name for p in tmp_path.iterdir()] == ["q8.gguf"]
    model = LlamaModel(path)
    assert model.ftype is FileType.Q8_0
    assert model.size > 130e6


def test_quantize_options(tiny_path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.gguf"
    llama_model_quantize(tiny_path, copy, LlamaQuantizeParams(only_copy=True))
    assert LlamaModel(copy).ftype is LlamaModel(tiny_path).ftype
    dry = tmp_path / "dry.gguf"
    llama_model_quantize(tiny_path, dry, LlamaQuantizeParams(ftype="q8_0", dry_run=True))
    assert not dry.exists()
    pruned = tmp_path / "pruned.gguf"
    llama_model_quantize(tiny_path, pruned, LlamaQuantizeParams(ftype="q8_0", prune_layers=[1]))
    assert LlamaModel(pruned).n_layer == 1
    with pytest.raises(ValueError, match="ftype is 'q9', expected one of"):
        llama_model_quantize(tiny_path, dry, LlamaQuantizeParams(ftype="q9"))
    with pytest.raises(ValueError, match="the same file"):
        llama_model_quantize(tiny_path, tiny_path)
    with pytest.raises(FileNotFoundError):
        llama_model_quantize(tmp_path / "none.gguf", dry)
    garbage = tmp_path / "garbage.gguf"
    garbage.write_bytes(b"GGUF" + bytes(range(256)))
    with pytest.raises(EngineError) as caught:
        llama_model_quantize(garbage, dry)
    assert caught.value.log
    assert not dry.exists()


def test_split_names() -> None:
    path = llama_split_path("/models/m", 1, 4)
    assert path == "/models/m-00002-of-00004.gguf"
    assert llama_split_prefix(path, 1, 4) == "/models/m"
    assert llama_split_prefix(path, 2, 4) is None
    with pytest.raises(ValueError, match="split_no is 4"):
        llama_split_path("m", 4, 4)


def test_builtin_templates() -> None:
    names = llama_chat_builtin_templates()
    assert {"chatml", "llama3", "gemma"} <= set(names)
    messages = [{"role": "user", "content": "hi " * 500}]
    text = llama_chat_apply_template("chatml", messages)
    assert text == f"<|im_start|>user\n{'hi ' * 500}<|im_end|>\n<|im_start|>assistant\n"
    assert llama_chat_apply_template(None, [("user", "x")], add_assistant=False).endswith("<|im_end|>\n")
    with pytest.raises(UnsupportedError):
        llama_chat_apply_template("{% no such template %}", messages)


def test_unknown_parameter_error_suggests_a_name(tiny_path: Path) -> None:
    params = LlamaModelParams()
    with pytest.raises(AttributeError, match="did you mean 'n_gpu_layers'"):
        params.n_gpu_layer = 1
    with pytest.raises(ValueError, match="did you mean 'mmap'"):
        LlamaModel(tiny_path, LlamaModelParams(load_mode="mmapp"))
    with pytest.raises(TypeError, match="expected LlamaModelParams"):
        LlamaModel(tiny_path, {"n_gpu_layers": 1})
    with pytest.raises(ValueError, match="expected names of"):
        LlamaModel(tiny_path, LlamaModelParams(devices=["CUDA9"]))
