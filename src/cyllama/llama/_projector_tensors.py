"""The tensors that the graphs of mtmd use without a check, although its loader accepts a projector without them.

A tensor whose name is damaged is an absent tensor. A null tensor in a graph ends the process, so these rules are
checked before the engine reads a file. `thirdparty/llama.cpp/tools/mtmd/models` has the graphs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

__all__ = ["missing_tensors"]

BLOCK = re.compile(r"([av])\.blk\.(\d+)\.(?!\d+\.)(.+)")  # not the stages of a MobileNet: v.blk.0.1.
EXPERTS = ("ffn_gate_inp.weight", "ffn_up_exps.weight", "ffn_down_exps.weight")  # of a block with several networks
IN_SOME_BLOCKS = {"attn_sinks", "attn_sinks.weight"}  # the blocks with window attention
PREFIXES = {"vision": "v", "audio": "a"}

WITHOUT_PATCHES = {"gemma3nv", "deepseekocr", "deepseekocr2"}
POSITIONS = {
    "v": {
        *("mlp", "ldp", "ldpv2", "resampler", "minicpmv4_6", "gemma4v", "gemma4uv", "phi4", "lfm2", "d1omni_v"),
        *("kimivl", "kimik25", "ling3vl", "paddleocr", "deepseekocr", "hunyuanvl", "muse-glimmer", "adapter"),
    },
    "a": {"ultravox", "qwen2a", "qwen2.5o", "qwen3a", "glma", "voxtral", "meralion", "musicflamingo", "lfm2a"},
}
OTHER = {
    **dict.fromkeys(
        ("qwen2vl_merger", "qwen2.5vl_merger", "qwen2.5o", "qwen3vl_merger", "ling3vl", "glm4v", "glm5v", "exaone4_5"),
        ("v.patch_embd.weight.1",),
    ),
    "gemma3nv": ("v.conv_stem.conv.weight",),
    "gemma4uv": ("v.patch_embd.bias",),
    "gemma4a": ("mm.a.input_projection.weight",),
    "deepseekocr": ("v.class_embd", "v.image_newline"),
    "deepseekocr2": ("v.resample_query_768.weight", "v.resample_query_1024.weight"),
    "parakeet": ("mm.a.norm_pre.weight", "mm.a.mlp.1.weight", "mm.a.mlp.2.weight"),
}
# For each tensor that marks a part of a convolutional network: the others of the part.
PARTS = {
    "conv_exp.weight": ("conv_pwl.weight",),
    "attn.query.proj.weight": ("attn.key.proj.weight", "attn.value.proj.weight", "attn.output.proj.weight"),
    "dw.weight": ("pw1.weight", "pw2.weight"),
}
PART = re.compile(r"(v\.(?:stage\.\d+\.)?blk\.(?:\d+\.)+)(.+)")


def missing_tensors(names: Iterable[str], projectors: Mapping[str, str]) -> Iterator[str]:
    """Yield the names of tensors that a projector file should have.

    Parameters
    ----------
    names : iterable of str
        The tensors of the file.
    projectors : mapping of str
        The type of the projector of each encoder in the file, ``"vision"`` and ``"audio"``.
    """
    found = set(names)
    blocks: dict[str, dict[int, set[str]]] = {}
    for name in found:
        if match := BLOCK.fullmatch(name):
            blocks.setdefault(match[1], {}).setdefault(int(match[2]), set()).add(match[3])
    for encoder, projector in projectors.items():
        prefix = PREFIXES[encoder]
        yield from _missing_in_blocks(prefix, blocks.get(prefix, {}))
        yield from (name for name in _needed(prefix, projector, found) if name not in found)


def _missing_in_blocks(prefix: str, blocks: dict[int, set[str]]) -> Iterator[str]:
    """Compare the blocks with the first of their kind, and check the parts of attention."""
    kinds: dict[bool, set[str]] = {}
    for parts in blocks.values():
        kinds.setdefault("ffn_gate_exps.weight" in parts, set()).update(parts - IN_SOME_BLOCKS)
    if not any("attn_out.weight" in parts for parts in kinds.values()):
        return  # blocks of another encoder than a transformer
    for with_experts, parts in kinds.items():
        if "attn_qkv.weight" not in parts:
            parts.update(f"attn_{part}.weight" for part in "qkv")
        if with_experts:
            parts.update(EXPERTS)
    for number, parts in sorted(blocks.items()):
        for part in sorted(kinds["ffn_gate_exps.weight" in parts] - parts):
            yield f"{prefix}.blk.{number}.{part}"


def _needed(prefix: str, projector: str, found: set[str]) -> Iterator[str]:
    if prefix == "v" and projector not in WITHOUT_PATCHES:
        yield "v.patch_embd.weight"
    if projector in POSITIONS[prefix]:
        yield f"{prefix}.position_embd.weight"
    yield from (name for name in OTHER.get(projector, ()) if name.removeprefix("mm.").startswith(f"{prefix}."))
    if projector in ("gemma3nv", "yasa2"):
        for match in filter(None, map(PART.fullmatch, sorted(found))):
            yield from (match[1] + part for part in PARTS.get(match[2], ()))
    if projector in ("pixtral", "lightonocr") and "mm.patch_merger.weight" in found:
        yield "mm.input_norm.weight"
    if projector == "mlp":  # LLaVA's has two linear layers; Yi's two with norms
        for layer in (0, 1, 3, 4) if "mm.3.weight" in found else (0, 2):
            yield f"mm.{layer}.weight"
            yield f"mm.{layer}.bias"
