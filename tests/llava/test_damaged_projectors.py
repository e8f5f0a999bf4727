"""Damaged projector files are rejected before the engine builds a graph from them."""

from __future__ import annotations

from pathlib import Path

import pytest
from llava.projectors import Family, projector_file, text_model
from llava.projectors_audio import AUDIO
from llava.projectors_images import IMAGES
from llava.support import changed

from cyllama import models
from cyllama.errors import ModelLoadError
from cyllama.llama import GGUFContext, LlamaModel
from cyllama.llava import MtmdContext, get_cap_from_file

FAMILIES: dict[str, Family] = {**IMAGES, **AUDIO}
# Tensors that the loader accepts without, although the graph uses them.
NEEDED = [
    ("mlp", "v.patch_embd.weight"),
    ("mlp", "v.position_embd.weight"),
    ("mlp", "mm.0.weight"),
    ("mlp", "mm.2.bias"),
    ("mlp_norm", "mm.1.bias"),
    ("mlp_norm", "mm.4.weight"),
    ("resampler", "v.position_embd.weight"),
    ("qwen2vl_merger", "v.patch_embd.weight.1"),
    ("qwen2vl_merger", "v.blk.0.attn_q.weight"),
    ("qwen2vl_merger", "v.blk.1.attn_v.weight"),
    ("qwen2vl_merger", "v.blk.1.ln1.weight"),
    ("qwen3vl_merger", "v.blk.1.attn_qkv.weight"),
    ("minicpmv4_6", "v.blk.0.ffn_up.bias"),
    ("dots3note_v", "v.blk.1.ffn_up_exps.weight"),
    ("adapter", "v.position_embd.weight"),
    ("pixtral", "mm.input_norm.weight"),
    ("exaone4_5", "v.patch_embd.weight.1"),
    ("deepseekocr", "v.image_newline"),
    ("deepseekocr2", "v.resample_query_1024.weight"),
    ("gemma3nv", "v.conv_stem.conv.weight"),
    ("gemma3nv", "v.blk.0.0.conv_pwl.weight"),
    ("gemma3nv", "v.blk.3.1.attn.value.proj.weight"),
    ("yasa2", "v.stage.1.blk.0.pw2.weight"),
    ("lfm2a", "a.position_embd.weight"),
    ("parakeet", "mm.a.norm_pre.weight"),
    ("gemma4a", "mm.a.input_projection.weight"),
    ("qwen2a", "a.position_embd.weight"),
    ("qwen2a", "a.blk.0.attn_out.bias"),
]


@pytest.mark.parametrize("name, tensor", NEEDED)
def test_rejects_projector_without_needed_tensor(tmp_path: Path, name: str, tensor: str) -> None:
    family = FAMILIES[name]
    path = changed(projector_file(name, family, tmp_path), tmp_path / "damaged.gguf", without=(tensor,))
    with LlamaModel(text_model(family, tmp_path)) as model, pytest.raises(ModelLoadError, match=tensor):
        MtmdContext(path, model)


def test_rejects_zeroed_tensor_name(tmp_path: Path) -> None:
    """A name of zero bytes is no name: the tensor is lost."""
    data = models.get("vision-dinov2s").read_bytes()
    path = tmp_path / "damaged.gguf"
    for name in ("v.blk.2.attn_q.weight", "v.blk.2.attn_k.weight", "v.blk.2.ln1.weight"):
        path.write_bytes(data.replace(name.encode(), bytes(len(name)), 1))
        with pytest.raises(ModelLoadError, match=name):
            get_cap_from_file(path)


@pytest.mark.parametrize("name", FAMILIES)
def test_accepts_whole_projector(tmp_path: Path, name: str) -> None:
    get_cap_from_file(projector_file(name, FAMILIES[name], tmp_path))


@pytest.mark.parametrize(
    "key, value",
    [
        ("attention.head_count", 3),
        ("attention.head_count", 0),
        ("embedding_length", 0),
        ("block_count", 0),
        ("block_count", 2**31),
    ],
)
def test_rejects_invalid_size(tmp_path: Path, key: str, value: int) -> None:
    def change(file: GGUFContext) -> None:
        file.set(f"clip.vision.{key}", value, "u32")

    path = changed(projector_file("mlp", IMAGES["mlp"], tmp_path), tmp_path / "damaged.gguf", change)
    with pytest.raises(ModelLoadError, match=key):
        get_cap_from_file(path)
