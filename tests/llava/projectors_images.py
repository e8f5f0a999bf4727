"""The image families with special graphs, and the list of all image families; see projectors.py."""

from __future__ import annotations

from llava import projectors_vit as vit
from llava.projectors import FORWARD, IMAGE, PATCH, TEXT, WIDTH, Family, Maker
from llava.projectors_vit import GROUPS, PATCHES, start, two_layers


def yasa2(m: Maker) -> None:
    m.sizes("vision", block_count=0)
    m.conv("v.patch_embd", 16, 3, PATCH // 2, PATCH // 2)
    m.keys["clip.vision.patch_size"] = PATCH // 2
    m.norm("v.patch_ln", 16)
    for stage, width in enumerate((16, 32)):
        if stage:
            m.norm(f"v.stage.{stage}.down.ln", width // 2)
            m.conv(f"v.stage.{stage}.down.conv", width, width // 2, 2, 2)
        block = f"v.stage.{stage}.blk.0"
        m.conv(f"{block}.dw", width, 1, 7, 7)
        m.norm(f"{block}.ln", width)
        m.linear(f"{block}.pw1", 4 * width, width)
        m.norm(f"{block}.grn", 4 * width)
        m.linear(f"{block}.pw2", width, 4 * width)
    m.norm("v.backbone_ln", 32)
    m.tensor("v.vision_pos_embed", PATCHES, 32)
    two_layers(m, FORWARD, columns=32)


def gemma3nv(m: Maker) -> None:
    m.sizes("vision", image_size=512, patch_size=2, embedding_length=32)
    m.conv("v.conv_stem.conv", 16, 3, 3, 3, bias=False)
    m.tensor("v.conv_stem.conv.bias", 16, 1, 1)
    m.norm("v.conv_stem.bn", 16, bias=False)
    m.conv("v.blk.0.0.conv_exp", 32, 16, 3, 3, bias=False)
    m.norm("v.blk.0.0.bn1", 32, bias=False)
    m.conv("v.blk.0.0.conv_pwl", 16, 32, 1, 1, bias=False)
    m.norm("v.blk.0.0.bn2", 16, bias=False)
    for stage, width in ((1, 16), (2, 24), (3, 32)):
        block, before = f"v.blk.{stage}.0", 16 if stage < 3 else 24
        m.conv(f"{block}.dw_start.conv", before, 1, 3, 3, bias=False)
        m.norm(f"{block}.dw_start.bn", before, bias=False)
        m.conv(f"{block}.pw_exp.conv", 32, before, 1, 1, bias=False)
        m.norm(f"{block}.pw_exp.bn", 32, bias=False)
        m.conv(f"{block}.dw_mid.conv", 32, 1, 5, 5, bias=False)
        m.norm(f"{block}.dw_mid.bn", 32, bias=False)
        m.conv(f"{block}.pw_proj.conv", width, 32, 1, 1, bias=False)
        m.norm(f"{block}.pw_proj.bn", width, bias=False)
    block, head = "v.blk.3.1", 8
    m.norm(f"{block}.norm", 32, bias=False)
    m.conv(f"{block}.attn.query.proj", 2 * head, 32, 1, 1, bias=False)
    for name in ("key", "value"):
        m.conv(f"{block}.attn.{name}.down_conv", 32, 1, 3, 3, bias=False)
        m.norm(f"{block}.attn.{name}.norm", 32, bias=False)
        m.conv(f"{block}.attn.{name}.proj", head, 32, 1, 1, bias=False)
    m.conv(f"{block}.attn.output.proj", 32, 2 * head, 1, 1, bias=False)
    m.tensor(f"{block}.layer_scale.gamma", 32, 1, 1)
    m.conv("v.msfa.ffn.pw_exp.conv", 48, 24 + 32, 1, 1, bias=False)
    m.norm("v.msfa.ffn.pw_exp.bn", 48, bias=False)
    m.conv("v.msfa.ffn.pw_proj.conv", 32, 48, 1, 1, bias=False)
    m.norm("v.msfa.ffn.pw_proj.bn", 32, bias=False)
    m.norm("v.msfa.norm", 32, bias=False)
    m.tensor("mm.input_projection.weight", TEXT, 32)
    m.norm("mm.soft_emb_norm", 32, bias=False)


def _sam(m: Maker, width: int, out: int) -> None:
    """The first encoder of DeepSeek-OCR; its images are always 1024 pixels wide."""
    m.keys |= {
        "clip.vision.sam.block_count": 3,
        "clip.vision.sam.head_count": 1,
        "clip.vision.sam.embedding_length": width,
        "clip.vision.window_size": 8,
    }
    m.tensor("v.sam.pos_embd.weight", 64, 64, width)
    m.conv("v.sam.patch_embd", width, 3, 16, 16)
    for i in range(3):  # the third attends to the whole image, the others to windows
        _sam_block(m, f"v.sam.blk.{i}", width, 15 if i < 2 else 127)
    m.conv("v.sam.neck.0", 16, width, 1, 1, bias=False)
    m.norm("v.sam.neck.1", 16)
    m.conv("v.sam.neck.2", 16, 16, 3, 3, bias=False)
    m.norm("v.sam.neck.3", 16)
    m.conv("v.sam.net_2", 16, 16, 3, 3, bias=False)
    m.conv("v.sam.net_3", out, 16, 3, 3, bias=False)
    m.tensor("v.view_seperator", TEXT)


def _sam_block(m: Maker, block: str, width: int, distances: int) -> None:
    m.norm(f"{block}.pre_ln", width)
    m.norm(f"{block}.post_ln", width)
    m.linear(f"{block}.attn.qkv", 3 * width, width)
    m.linear(f"{block}.attn.out", width, width)
    m.tensor(f"{block}.attn.pos_h.weight", distances, width)
    m.tensor(f"{block}.attn.pos_w.weight", distances, width)
    m.linear(f"{block}.mlp.lin1", 16, width)
    m.linear(f"{block}.mlp.lin2", width, 16)


def deepseekocr(m: Maker) -> None:
    m.sizes("vision", image_size=1024, patch_size=16)
    _sam(m, 16, WIDTH)
    m.tensor("v.class_embd", WIDTH)
    m.tensor("v.position_embd.weight", 257, WIDTH)
    m.norm("v.pre_ln")
    m.layers(fused=True)
    m.linear("mm.model.fc", TEXT, 2 * WIDTH)
    m.tensor("v.image_newline", TEXT)


def deepseekocr2(m: Maker) -> None:
    m.sizes("vision", image_size=1024, patch_size=16, **{"attention.head_count_kv": 2})
    _sam(m, 16, WIDTH)
    m.layers(gate=True, norm_bias=False, keys_and_values=WIDTH // 2)
    m.norm("v.post_ln", bias=False)
    m.linear("mm.model.fc", TEXT, WIDTH)
    m.tensor("v.resample_query_768.weight", 144, WIDTH)
    m.tensor("v.resample_query_1024.weight", 256, WIDTH)


def granite4_vision(m: Maker) -> None:
    window, query, part = 4, 2, TEXT // 2
    start(m, projection_dim=part, **{"projector.query_side": query, "projector.window_side": window})
    m.keys |= {"clip.vision.feature_layer": [0, 1], "clip.vision.projector.spatial_offsets": [-1, 0]}
    m.keys["clip.vision.image_grid_pinpoints"] = [IMAGE, IMAGE]
    m.layers()
    m.tensor("v.image_newline", part)
    for i in range(2):
        name = f"v.proj_blk.{i}"
        m.tensor(f"{name}.img_pos", window * window, WIDTH)
        m.tensor(f"{name}.query", query * query, WIDTH)
        m.linear(f"{name}.linear", part, WIDTH)
        for norm in ("norm", "post_norm", "self_attn_norm", "cross_attn_norm", "ffn_norm"):
            m.norm(f"{name}.{norm}")
        for kind in ("self", "cross"):
            for matrix in ("q", "k", "v", "out"):
                m.linear(f"{name}.{kind}_attn_{matrix}", WIDTH, WIDTH)
        m.linear(f"{name}.ffn_up", FORWARD, WIDTH)
        m.linear(f"{name}.ffn_down", WIDTH, FORWARD)


IMAGES = {
    "mlp": Family(vit.mlp, PATCHES),
    "mlp_norm": Family(vit.mlp_norm, PATCHES),
    "ldp": Family(vit.ldp, 144),
    "ldpv2": Family(vit.ldpv2, 144),
    "resampler": Family(vit.minicpmv, 12, text=128),
    "minicpmv4_6": Family(vit.minicpmv4_6, PATCHES // 16),
    "adapter": Family(vit.glm_edge, GROUPS + 2),
    "qwen2vl_merger": Family(vit.qwen2vl, GROUPS, mrope=True),
    "qwen2.5vl_merger": Family(vit.qwen25vl, GROUPS, mrope=True),
    "qwen3vl_merger": Family(vit.qwen3vl, GROUPS, mrope=True),
    "ling3vl": Family(vit.ling3vl, GROUPS),
    "step3vl": Family(vit.step3vl, PATCHES // 16),
    "gemma3": Family(vit.gemma3, GROUPS),
    "gemma3nv": Family(gemma3nv, 256),
    "gemma4v": Family(vit.gemma4v, 81),
    "gemma4uv": Family(vit.gemma4uv, 81),
    "phi4": Family(vit.phi4, PATCHES),
    "idefics3": Family(vit.idefics3, 2 * GROUPS),
    "pixtral": Family(vit.pixtral, GROUPS + 3),
    "internvl": Family(vit.internvl, GROUPS),
    "llama4": Family(vit.llama4, GROUPS),
    "cohere2v": Family(vit.cohere2v, GROUPS),
    "lfm2": Family(vit.lfm2, 64),
    "d1omni_v": Family(vit.lfm2, 64),
    "kimivl": Family(vit.kimivl, GROUPS),
    "kimik25": Family(vit.kimik25, GROUPS),
    "paddleocr": Family(vit.paddleocr, GROUPS, mrope=True),
    "lightonocr": Family(vit.lightonocr, GROUPS),
    "cogvlm": Family(vit.cogvlm, PATCHES + 2),
    "janus_pro": Family(vit.janus_pro, PATCHES),
    "dots_ocr": Family(vit.dots_ocr, GROUPS),
    "dots3note_v": Family(vit.dots3note_v, GROUPS),
    "deepseekocr": Family(deepseekocr, 16 * 17 + 1),
    "deepseekocr2": Family(deepseekocr2, 257),
    "deepseek4v": Family(vit.deepseek4v, GROUPS + 4 + 3),
    "glm4v": Family(vit.glm4v, GROUPS, mrope=True),
    "glm5v": Family(vit.glm5v, GROUPS, mrope=True),
    "youtuvl": Family(vit.youtuvl, GROUPS),
    "yasa2": Family(yasa2, PATCHES),
    "nemotron_v2_vl": Family(vit.nemotron_v2_vl, GROUPS),
    "hunyuanvl": Family(vit.hunyuanvl, 5 * 4 + 2, mrope=True),
    "exaone4_5": Family(vit.exaone4_5, GROUPS),
    "mimovl": Family(vit.mimovl, GROUPS, mrope=True),
    "minimax_m3": Family(vit.minimax_m3, GROUPS),
    "granite4_vision": Family(granite4_vision, 2 * GROUPS + 4),
    "muse-glimmer": Family(vit.muse_glimmer, GROUPS),
}
