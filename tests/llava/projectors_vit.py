"""Image families with one transformer; see projectors.py. Each is made for images of 64 x 64 pixels."""

from __future__ import annotations

import numpy as np
from llava.projectors import FORWARD, HEADS, IMAGE, LAYERS, PATCH, TEXT, WIDTH, Maker

PATCHES = (IMAGE // PATCH) ** 2
GROUPS = PATCHES // 4  # of 2 x 2 patches
PIXELS = {"image_min_pixels": IMAGE * IMAGE, "image_max_pixels": IMAGE * IMAGE}


def start(m: Maker, positions: int | None = PATCHES, bias: bool = True, patch: int = PATCH, **sizes: int) -> None:
    """Add keys, patches and learned positions."""
    m.sizes("vision", **sizes)
    m.conv("v.patch_embd", WIDTH, 3, patch, patch, bias=bias)
    if positions:
        m.tensor("v.position_embd.weight", positions, WIDTH)


def _two_frames(m: Maker) -> None:
    """Add the second temporal half of the patch embedding."""
    m.tensor("v.patch_embd.weight.1", WIDTH, 3, PATCH, PATCH, kind=np.float16)


def two_layers(
    m: Maker, inner: int, first: str = "mm.0", second: str = "mm.2", columns: int = WIDTH, bias: bool = True
) -> None:
    m.linear(first, inner, columns, bias)
    m.linear(second, TEXT, inner, bias)


def _clip(m: Maker, **sizes: int) -> None:
    """The encoder of LLaVA: CLIP with a class token."""
    patches = (sizes.get("image_size", IMAGE) // PATCH) ** 2
    start(m, patches + 1, bias=False, **sizes)
    m.tensor("v.class_embd", WIDTH)
    m.norm("v.pre_ln")
    m.layers()


def mlp(m: Maker) -> None:
    _clip(m)
    two_layers(m, FORWARD)


def mlp_norm(m: Maker) -> None:
    _clip(m)
    m.keys["clip.projector_type"] = "mlp"  # distinguished by its tensors
    m.linear("mm.0", FORWARD, WIDTH)
    m.norm("mm.1", FORWARD)
    m.linear("mm.3", TEXT, FORWARD)
    m.norm("mm.4", TEXT)


def ldp(m: Maker) -> None:
    _clip(m, image_size=24 * PATCH)
    two_layers(m, TEXT, "mm.model.mlp.1", "mm.model.mlp.3")
    for block in (1, 2):
        name = f"mm.model.mb_block.{block}.block"
        m.tensor(f"{name}.0.0.weight", TEXT, 1, 3, 3, kind=np.float16)
        m.norm(f"{name}.0.1", TEXT)
        m.linear(f"{name}.1.fc1", 8, TEXT)
        m.linear(f"{name}.1.fc2", TEXT, 8)
        m.linear(f"{name}.2.0", TEXT, TEXT, bias=False)
        m.norm(f"{name}.2.1", TEXT)


def ldpv2(m: Maker) -> None:
    _clip(m, image_size=24 * PATCH)
    two_layers(m, TEXT, "mm.model.mlp.0", "mm.model.mlp.2")
    m.conv("mm.model.peg.0", TEXT, 1, 3, 3)


def glm_edge(m: Maker) -> None:
    start(m)
    m.layers()
    m.conv("adapter.conv", WIDTH, WIDTH, 2, 2)
    m.linear("adapter.linear.linear", TEXT, WIDTH, bias=False)
    m.norm("adapter.linear.norm1", TEXT)
    m.linear("adapter.linear.dense_h_to_4h", FORWARD, TEXT, bias=False)
    m.linear("adapter.linear.gate", FORWARD, TEXT, bias=False)
    m.linear("adapter.linear.dense_4h_to_h", TEXT, FORWARD, bias=False)
    m.tensor("adapter.boi", TEXT)
    m.tensor("adapter.eoi", TEXT)


def minicpmv(m: Maker) -> None:
    out, queries = 128, 12
    start(m, 70 * 70)
    m.keys |= {"clip.minicpmv_version": np.int32(3), "clip.minicpmv_query_num": queries}
    m.layers()
    m.norm("v.post_ln")
    m.tensor("resampler.pos_embed_k", PATCHES, out)
    m.tensor("resampler.query", queries, out)
    m.tensor("resampler.proj.weight", out, out)
    m.tensor("resampler.kv.weight", out, WIDTH)
    for name in ("q", "k", "v", "out"):
        m.linear(f"resampler.attn.{name}", out, out)
    for name in ("q", "kv", "post"):
        m.norm(f"resampler.ln_{name}", out)


def minicpmv4_6(m: Maker) -> None:
    start(m, 70 * 70)
    m.keys["clip.vision.wa_layer_indexes"] = [0]
    m.layers()
    m.norm("v.post_ln")
    m.norm("v.vit_merger.ln1")
    for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
        m.linear(f"v.vit_merger.{name}", WIDTH, WIDTH)
    m.norm("v.vit_merger.ds_ln", 4 * WIDTH)
    m.linear("v.vit_merger.ds_ffn_up", FORWARD, 4 * WIDTH)
    m.linear("v.vit_merger.ds_ffn_down", WIDTH, FORWARD)
    m.norm("mm.input_norm", 4 * WIDTH)
    two_layers(m, FORWARD, "mm.up", "mm.down", 4 * WIDTH)


def qwen2vl(m: Maker) -> None:
    start(m, None, bias=False)
    _two_frames(m)
    m.layers()
    m.norm("v.post_ln")
    two_layers(m, FORWARD, columns=4 * WIDTH)


def qwen25vl(m: Maker) -> None:
    start(m, None, bias=False, n_wa_pattern=2)
    _two_frames(m)
    m.keys["clip.use_silu"] = True
    m.layers(gate=True, norm_bias=False)
    m.norm("v.post_ln", bias=False)
    two_layers(m, FORWARD, columns=4 * WIDTH)


def exaone4_5(m: Maker) -> None:
    start(m, None, bias=False, n_wa_pattern=2, **{"attention.head_count_kv": 2}, **PIXELS)
    _two_frames(m)
    m.keys["clip.use_silu"] = True
    m.layers(gate=True, norm_bias=False, fused=True, keys_and_values=WIDTH // 2)
    m.norm("v.post_ln", bias=False)
    two_layers(m, FORWARD, columns=4 * WIDTH)


def qwen3vl(m: Maker) -> None:
    start(m)
    _two_frames(m)
    m.layers(fused=True)
    m.norm("v.post_ln")
    two_layers(m, FORWARD, columns=4 * WIDTH)


def ling3vl(m: Maker) -> None:
    start(m)
    _two_frames(m)
    m.layers(fused=True)
    m.norm("mm.input_norm")
    two_layers(m, FORWARD, columns=4 * WIDTH)


def mimovl(m: Maker) -> None:
    start(m, None, bias=False, **{"attention.head_count_kv": 2}, window_size=4, **PIXELS)
    _two_frames(m)
    m.keys |= {"clip.vision.wa_pattern_mode": [-1, 0, 1], "clip.vision.block_count": 3, "clip.use_silu": True}
    m.layers(gate=True, norm_bias=False, fused=True, keys_and_values=WIDTH // 2, count=3)
    for i in range(3):
        m.tensor(f"v.blk.{i}.attn_sinks", HEADS)
    m.norm("v.post_ln")
    two_layers(m, FORWARD, columns=4 * WIDTH, bias=False)


def minimax_m3(m: Maker) -> None:
    start(m, None, bias=False)
    _two_frames(m)
    m.norm("v.pre_ln")
    m.layers()
    two_layers(m, FORWARD, "mm.1", "mm.2")
    m.linear("mm.merger.fc1", FORWARD, 4 * TEXT)
    m.linear("mm.merger.fc2", TEXT, FORWARD)


def muse_glimmer(m: Maker) -> None:
    start(m)
    m.norm("v.pre_ln")
    m.layers()
    m.norm("v.post_ln")
    m.linear("mm.0", FORWARD, 4 * WIDTH, bias=False)
    m.linear("mm.1", FORWARD, FORWARD, bias=False)
    m.linear("mm.2", TEXT, FORWARD, bias=False)


def step3vl(m: Maker) -> None:
    start(m)
    m.norm("v.pre_ln")
    m.layers(fused=True)
    m.conv("mm.0", FORWARD, WIDTH, 3, 3)
    m.conv("mm.1", FORWARD, FORWARD, 3, 3)
    m.linear("mm.model.fc", TEXT, FORWARD, bias=False)


def youtuvl(m: Maker) -> None:
    m.sizes("vision", window_size=4 * PATCH)
    m.keys["clip.vision.wa_layer_indexes"] = [1]
    m.linear("v.patch_embd", WIDTH, 3 * PATCH * PATCH)
    m.layers()
    m.norm("v.post_ln")
    m.norm("mm.input_norm", bias=False)
    two_layers(m, FORWARD, columns=4 * WIDTH)


def glm4v(m: Maker) -> None:
    start(m)
    _two_frames(m)
    m.keys["clip.use_silu"] = True
    m.norm("v.norm_embd", bias=False)
    m.layers(gate=True, norm_bias=False, bias=False, fused=True)
    m.norm("v.post_ln", bias=False)
    m.linear("mm.model.fc", FORWARD, FORWARD, bias=False)
    m.linear("mm.up", FORWARD, FORWARD, bias=False)
    m.linear("mm.gate", FORWARD, FORWARD, bias=False)
    m.linear("mm.down", TEXT, FORWARD, bias=False)
    m.norm("mm.post_norm", FORWARD)
    m.conv("mm.patch_merger", FORWARD, WIDTH, 2, 2)


def glm5v(m: Maker) -> None:
    glm4v(m)
    m.keys |= {"clip.vision.swiglu_clamp": 7.0} | {f"clip.vision.{key}": value for key, value in PIXELS.items()}


def gemma3(m: Maker) -> None:
    start(m, **{"projector.scale_factor": 2})
    m.layers()
    m.norm("v.post_ln")
    m.tensor("mm.input_projection.weight", WIDTH, TEXT)
    m.norm("mm.soft_emb_norm", bias=False)


def gemma4v(m: Maker) -> None:
    start(m, None, bias=False, **{"projector.scale_factor": 2})
    m.tensor("v.position_embd.weight", 2, 80, WIDTH)
    m.layers(bias=False, gate=True, norm_bias=False)
    for i in range(LAYERS):
        for name in ("attn_q_norm", "attn_k_norm"):
            m.norm(f"v.blk.{i}.{name}", WIDTH // HEADS, bias=False)
        for name in ("attn_post_norm", "ffn_post_norm"):
            m.norm(f"v.blk.{i}.{name}", bias=False)
    m.tensor("mm.input_projection.weight", TEXT, WIDTH)


def gemma4uv(m: Maker) -> None:
    side = 2 * PATCH
    m.sizes("vision", block_count=0, **{"projector.scale_factor": 2})
    m.linear("v.patch_embd", WIDTH, 3 * side * side)
    m.tensor("v.position_embd.weight", 2, 80, WIDTH)
    m.norm("v.patch_norm.1", 3 * side * side)
    m.norm("v.patch_norm.2")
    m.norm("v.patch_norm.3")
    m.tensor("mm.input_projection.weight", TEXT, WIDTH)


def idefics3(m: Maker) -> None:
    start(m, **{"projector.scale_factor": 2, "preproc_image_size": IMAGE})
    m.layers()
    m.norm("v.post_ln")
    m.linear("mm.model.fc", TEXT, 4 * WIDTH, bias=False)


def cohere2v(m: Maker) -> None:
    start(m, **{"projector.scale_factor": 2, "preproc_max_tiles": 4})
    m.layers()
    m.norm("v.post_ln")
    m.linear("mm.1", 2 * FORWARD, 4 * WIDTH)  # half of them are the gate
    m.linear("mm.2", TEXT, FORWARD)


def lfm2(m: Maker) -> None:
    start(m, **{"projector.scale_factor": 2})
    m.layers()
    m.norm("v.post_ln")
    m.norm("mm.input_norm", 4 * WIDTH)
    two_layers(m, FORWARD, "mm.1", "mm.2", 4 * WIDTH)


def janus_pro(m: Maker) -> None:
    start(m)
    m.layers()
    m.norm("v.post_ln")
    two_layers(m, FORWARD, "mm.0", "mm.1")


def phi4(m: Maker) -> None:
    start(m, **PIXELS)
    m.layers()
    m.norm("v.post_ln")
    two_layers(m, FORWARD)


def _pixtral(m: Maker, **sizes: int) -> None:
    start(m, None, bias=False, spatial_merge_size=2, **sizes)
    m.keys["clip.use_silu"] = True
    m.norm("v.pre_ln", bias=False)
    m.layers(bias=False, gate=True, norm_bias=False)
    m.norm("mm.input_norm", bias=False)
    m.linear("mm.patch_merger", WIDTH, 4 * WIDTH, bias=False)
    two_layers(m, FORWARD, "mm.1", "mm.2", bias=False)


def pixtral(m: Maker) -> None:
    _pixtral(m)
    m.tensor("v.token_embd.img_break", TEXT)


def lightonocr(m: Maker) -> None:
    _pixtral(m, preproc_image_size=IMAGE)


def _kimi(m: Maker) -> None:
    m.layers()
    m.norm("v.post_ln")
    m.norm("mm.input_norm")
    two_layers(m, FORWARD, "mm.1", "mm.2", 4 * WIDTH)


def kimivl(m: Maker) -> None:
    start(m, **{"projector.scale_factor": 2})
    _kimi(m)


def kimik25(m: Maker) -> None:
    start(m, None, **{"projector.scale_factor": 2})
    m.tensor("v.position_embd.weight", IMAGE // PATCH, IMAGE // PATCH, WIDTH)
    _kimi(m)


def paddleocr(m: Maker) -> None:
    start(m, **PIXELS)
    _kimi(m)


def deepseek4v(m: Maker) -> None:
    start(m, None, bias=False, **{"projector.scale_factor": 2, "image_min_pixels": IMAGE * IMAGE})
    m.keys["clip.use_silu"] = True
    m.layers(bias=False, gate=True, norm_bias=False)
    m.norm("v.post_ln", bias=False)
    two_layers(m, FORWARD, "mm.1", "mm.2", 4 * WIDTH)
    for name in ("v.image_newline", "v.token_embd.img_start", "v.token_embd.img_end", "v.token_embd.img_pad"):
        m.tensor(name, TEXT)


def _dots(m: Maker, **sizes: int) -> None:
    start(m, None, **PIXELS, **sizes)
    m.keys["clip.use_silu"] = True
    m.norm("v.pre_ln", bias=False)
    m.layers(bias=False, gate=True, norm_bias=False, fused=True)
    m.norm("mm.post_norm", bias=False)
    m.norm("mm.input_norm")
    two_layers(m, FORWARD, columns=4 * WIDTH)


def dots_ocr(m: Maker) -> None:
    _dots(m, **{"projector.scale_factor": 2})


def dots3note_v(m: Maker) -> None:
    _dots(m, spatial_merge_size=2, expert_used_count=2)
    experts = 4
    for name in ("ffn_up", "ffn_gate", "ffn_down"):  # the second block is a mixture of experts
        del m.tensors[f"v.blk.1.{name}.weight"]
    m.tensor("v.blk.1.ffn_gate_inp.weight", experts, WIDTH)
    m.tensor("v.blk.1.exp_probs_b.weight", experts)
    m.tensor("v.blk.1.ffn_gate_exps.weight", experts, FORWARD, WIDTH)
    m.tensor("v.blk.1.ffn_up_exps.weight", experts, FORWARD, WIDTH)
    m.tensor("v.blk.1.ffn_down_exps.weight", experts, WIDTH, FORWARD)


def cogvlm(m: Maker) -> None:
    start(m, PATCHES + 1)
    m.tensor("v.class_embd", WIDTH)
    m.layers(fused=True)
    m.linear("mm.model.fc", TEXT, WIDTH, bias=False)
    m.norm("mm.post_fc_norm", TEXT)
    m.linear("mm.up", FORWARD, TEXT, bias=False)
    m.linear("mm.gate", FORWARD, TEXT, bias=False)
    m.linear("mm.down", TEXT, FORWARD, bias=False)
    m.tensor("v.boi", TEXT)
    m.tensor("v.eoi", TEXT)


def internvl(m: Maker) -> None:
    start(m, PATCHES + 1, **{"projector.scale_factor": 2})
    m.tensor("v.class_embd", WIDTH)
    m.layers()
    m.norm("mm.model.mlp.0", 4 * WIDTH)
    two_layers(m, FORWARD, "mm.model.mlp.1", "mm.model.mlp.3", 4 * WIDTH)


def nemotron_v2_vl(m: Maker) -> None:
    start(m, bias=False, **{"projector.scale_factor": 2})
    m.tensor("v.class_embd", 3, WIDTH)
    m.layers()
    m.norm("mm.model.mlp.0", 4 * WIDTH, bias=False)
    two_layers(m, FORWARD, "mm.model.mlp.1", "mm.model.mlp.3", 4 * WIDTH, bias=False)


def llama4(m: Maker) -> None:
    m.sizes("vision", **{"projector.scale_factor": 2})
    m.linear("v.patch_embd", WIDTH, 3 * PATCH * PATCH, bias=False)
    m.tensor("v.position_embd.weight", PATCHES + 1, WIDTH)
    m.tensor("v.class_embd", WIDTH)
    m.norm("v.pre_ln")
    m.layers()
    m.norm("v.post_ln")
    m.linear("mm.model.mlp.1", FORWARD, 4 * WIDTH, bias=False)
    m.linear("mm.model.mlp.2", FORWARD, FORWARD, bias=False)
    m.linear("mm.model.fc", TEXT, FORWARD, bias=False)


def hunyuanvl(m: Maker) -> None:
    start(m, spatial_merge_size=2, **PIXELS)
    m.layers()
    m.norm("mm.pre_norm", bias=False)
    m.conv("mm.0", FORWARD, WIDTH, 2, 2)
    m.conv("mm.2", FORWARD, FORWARD, 1, 1)
    m.linear("mm.model.fc", TEXT, FORWARD)
    m.norm("mm.post_norm", TEXT, bias=False)
    m.tensor("mm.image_begin", TEXT)
    m.tensor("mm.image_end", TEXT)
    m.tensor("v.image_newline", FORWARD)
