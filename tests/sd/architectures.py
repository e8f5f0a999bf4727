"""Models of true architecture and size with random, quantised weights, for tests: SD 1.5, SDXL, SD 3, FLUX and Wan 2.1."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cyllama.llama import GGUFContext
from cyllama.models.generated.random_flux import Weights, clip_l, taef1

Tensors = Iterator[tuple[str, np.ndarray, str | None]]

DIFFUSION = "model.diffusion_model."
LATENTS = 4


class Random:
    """Random weights, the same numbers over and over: what counts here is the shape."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self._floats = random.normal(size=1 << 16).astype(np.float32)
        self._nibbles = random.integers(0, 256, (1 << 14, 16), np.uint8)

    def vector(self, count: int) -> np.ndarray:
        return np.resize(self._floats / 10, count)

    def linear(self, name: str, rows: int, columns: int, *, bias: bool = True) -> Tensors:
        blocks = rows * columns // 32
        raw = np.empty((blocks, 18), np.uint8)
        raw[:, :2] = np.array([0.1 / math.sqrt(columns)], np.float16).view(np.uint8)
        raw[:, 2:] = np.resize(self._nibbles, (blocks, 16))
        yield f"{name}.weight", raw.reshape(rows, columns // 32 * 18), "Q4_0"
        if bias:
            yield f"{name}.bias", np.zeros(rows, np.float32), None

    def conv(self, name: str, rows: int, columns: int, side: int = 3) -> Tensors:
        scale = np.float32(1 / math.sqrt(columns * side * side))
        yield f"{name}.weight", np.resize((self._floats * scale).astype(np.float16), (rows, columns, side, side)), None
        yield f"{name}.bias", np.zeros(rows, np.float32), None

    def norm(self, name: str, width: int) -> Tensors:
        yield f"{name}.weight", np.ones(width, np.float32), None
        yield f"{name}.bias", np.zeros(width, np.float32), None


@dataclass(frozen=True)
class UNet:
    """Sizes of a UNet, under the engine's names (unet.hpp)."""

    context: int
    multiples: tuple[int, ...]
    depths: tuple[int, ...]
    attention: tuple[int, ...]  # at which reductions
    linear_projection: bool = False
    vector: int = 0
    channels: int = 320
    blocks: int = 2


SD1 = UNet(context=768, multiples=(1, 2, 4, 4), depths=(1, 1, 1, 1), attention=(4, 2, 1))
SDXL = UNet(context=2048, multiples=(1, 2, 4), depths=(1, 2, 10), attention=(4, 2), linear_projection=True, vector=2816)


def unet(random: Random, sizes: UNet) -> Tensors:
    """The diffusion model."""
    width, time = sizes.channels, 4 * sizes.channels
    yield from random.linear(f"{DIFFUSION}time_embed.0", time, width)
    yield from random.linear(f"{DIFFUSION}time_embed.2", time, time)
    if sizes.vector:
        yield from random.linear(f"{DIFFUSION}label_emb.0.0", time, sizes.vector)
        yield from random.linear(f"{DIFFUSION}label_emb.0.2", time, time)
    yield from random.conv(f"{DIFFUSION}input_blocks.0.0", width, LATENTS)
    index, ch, reduction, skips = 0, width, 1, [width]
    for i, multiple in enumerate(sizes.multiples):
        for _ in range(sizes.blocks):
            index += 1
            yield from resblock(random, f"{DIFFUSION}input_blocks.{index}.0", ch, time, multiple * width)
            ch = multiple * width
            if reduction in sizes.attention:
                yield from transformer(random, f"{DIFFUSION}input_blocks.{index}.1", ch, sizes.depths[i], sizes)
            skips.append(ch)
        if i < len(sizes.multiples) - 1:
            index += 1
            yield from random.conv(f"{DIFFUSION}input_blocks.{index}.0.op", ch, ch)
            skips.append(ch)
            reduction *= 2
    yield from resblock(random, f"{DIFFUSION}middle_block.0", ch, time, ch)
    yield from transformer(random, f"{DIFFUSION}middle_block.1", ch, sizes.depths[-1], sizes)
    yield from resblock(random, f"{DIFFUSION}middle_block.2", ch, time, ch)
    index = 0
    for i in reversed(range(len(sizes.multiples))):
        for j in range(sizes.blocks + 1):
            yield from resblock(
                random, f"{DIFFUSION}output_blocks.{index}.0", ch + skips.pop(), time, sizes.multiples[i] * width
            )
            ch = sizes.multiples[i] * width
            attends = reduction in sizes.attention
            if attends:
                yield from transformer(random, f"{DIFFUSION}output_blocks.{index}.1", ch, sizes.depths[i], sizes)
            if i > 0 and j == sizes.blocks:
                yield from random.conv(f"{DIFFUSION}output_blocks.{index}.{1 + attends}.conv", ch, ch)
                reduction //= 2
            index += 1
    yield from random.norm(f"{DIFFUSION}out.0", ch)
    yield from random.conv(f"{DIFFUSION}out.2", LATENTS, ch)


def control_net(random: Random) -> Tensors:
    """ControlNet for SD 1: the first half of its UNet, a convolution of no effect at each level, and the hint's."""
    first_half = ("time_embed.", "input_blocks.", "middle_block.")
    levels = []
    for name, data, kind in unet(random, SD1):
        inner = name.removeprefix(DIFFUSION)
        if inner.startswith(first_half):
            yield inner, data, kind
        if inner == "input_blocks.0.0.weight" or (
            inner.startswith("input_blocks.") and inner.endswith((".op.weight", ".out_layers.3.weight"))
        ):
            levels.append(data.shape[0])
    for i, width in enumerate(levels):
        yield from random.conv(f"zero_convs.{i}.0", width, width, 1)
    yield from random.conv("middle_block_out.0", levels[-1], levels[-1], 1)
    widths = (3, 16, 16, 32, 32, 96, 96, 256, 320)
    for i, (columns, rows) in enumerate(itertools.pairwise(widths)):
        yield from random.conv(f"input_hint_block.{2 * i}", rows, columns)


def resblock(random: Random, name: str, columns: int, time: int, rows: int) -> Tensors:
    """Two convolutions and the time."""
    yield from random.norm(f"{name}.in_layers.0", columns)
    yield from random.conv(f"{name}.in_layers.2", rows, columns)
    yield from random.linear(f"{name}.emb_layers.1", rows, time)
    yield from random.norm(f"{name}.out_layers.0", rows)
    yield from random.conv(f"{name}.out_layers.3", rows, rows)
    if rows != columns:
        yield from random.conv(f"{name}.skip_connection", rows, columns, 1)


def transformer(random: Random, name: str, width: int, depth: int, sizes: UNet) -> Tensors:
    """Attention to itself and to the text."""

    def projection(part: str) -> Tensors:
        if sizes.linear_projection:
            return random.linear(f"{name}.{part}", width, width)
        return random.conv(f"{name}.{part}", width, width, 1)

    yield from random.norm(f"{name}.norm", width)
    yield from projection("proj_in")
    for i in range(depth):
        block = f"{name}.transformer_blocks.{i}"
        for attention, context in (("attn1", width), ("attn2", sizes.context)):
            yield from random.linear(f"{block}.{attention}.to_q", width, width, bias=False)
            yield from random.linear(f"{block}.{attention}.to_k", width, context, bias=False)
            yield from random.linear(f"{block}.{attention}.to_v", width, context, bias=False)
            yield from random.linear(f"{block}.{attention}.to_out.0", width, width)
        yield from random.linear(f"{block}.ff.net.0.proj", 8 * width, width)
        yield from random.linear(f"{block}.ff.net.2", width, 4 * width)
        for norm in ("norm1", "norm2", "norm3"):
            yield from random.norm(f"{block}.{norm}", width)
    yield from projection("proj_out")


def text_encoder(prefix: str) -> Tensors:
    """CLIP-L."""
    for name, data, kind in clip_l(Weights(1)):
        yield name.replace("text_encoders.clip_l.", prefix), data, kind


def large_text_encoder(random: Random, prefix: str) -> Tensors:
    """CLIP-G: OpenCLIP's bigG."""
    width, name = 1280, f"{prefix}transformer.text_model"
    yield from random.linear(f"{name}.embeddings.token_embedding", 49408, width, bias=False)
    positions = np.zeros((77, width), np.float32)
    yield f"{name}.embeddings.position_embedding.weight", positions, None
    for i in range(32):
        layer = f"{name}.encoder.layers.{i}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from random.linear(f"{layer}.self_attn.{part}", width, width)
        yield from random.norm(f"{layer}.layer_norm1", width)
        yield from random.norm(f"{layer}.layer_norm2", width)
        yield from random.linear(f"{layer}.mlp.fc1", 4 * width, width)
        yield from random.linear(f"{layer}.mlp.fc2", width, 4 * width)
    yield from random.norm(f"{name}.final_layer_norm", width)
    yield f"{name}.text_projection", np.eye(width, dtype=np.float16), None


def auto_encoder() -> Tensors:
    """TAESD: TAEF1 with fewer latents."""
    tensors = list(taef1(Weights(2)))
    last = [name for name, _, _ in tensors if name.startswith("tae.encoder")][-1].rpartition(".")[0]
    for name, data, kind in tensors:
        if name == "tae.decoder.layers.0.weight":
            data = np.ascontiguousarray(data[:, :LATENTS])
        elif name.startswith(last + "."):
            data = np.ascontiguousarray(data[:LATENTS])
        yield name, data, kind


def mmdit(random: Random, depth: int = 24) -> Tensors:
    """The transformer of SD 3: the engine takes no fewer layers."""
    width = 64 * depth
    yield f"{DIFFUSION}pos_embed", np.zeros((1, 192 * 192, width), np.float16), None
    yield from random.conv(f"{DIFFUSION}x_embedder.proj", width, 16, 2)
    for name, columns in (("t_embedder", 256), ("y_embedder", 2048)):
        yield from random.linear(f"{DIFFUSION}{name}.mlp.0", width, columns)
        yield from random.linear(f"{DIFFUSION}{name}.mlp.2", width, width)
    yield from random.linear(f"{DIFFUSION}context_embedder", width, 4096)
    for i in range(depth):
        for side in ("context_block", "x_block"):
            block, last = f"{DIFFUSION}joint_blocks.{i}.{side}", i == depth - 1 and side == "context_block"
            yield from random.linear(f"{block}.attn.qkv", 3 * width, width)
            yield from random.linear(f"{block}.adaLN_modulation.1", (2 if last else 6) * width, width)
            if not last:  # nobody reads what becomes of the text
                yield from random.linear(f"{block}.attn.proj", width, width)
                yield from random.linear(f"{block}.mlp.fc1", 4 * width, width)
                yield from random.linear(f"{block}.mlp.fc2", width, 4 * width)
    yield from random.linear(f"{DIFFUSION}final_layer.linear", 4 * 16, width)
    yield from random.linear(f"{DIFFUSION}final_layer.adaLN_modulation.1", 2 * width, width)


def flux(random: Random, double: int = 2, single: int = 4) -> Tensors:
    """The transformer of FLUX dev in its true width, with fewer layers."""
    width, head = 3072, 128

    def scales(name: str) -> Tensors:
        for norm in ("query_norm", "key_norm"):
            yield f"{DIFFUSION}{name}.{norm}.scale", np.ones(head, np.float32), None

    yield from random.linear(f"{DIFFUSION}img_in", width, 64)
    yield from random.linear(f"{DIFFUSION}txt_in", width, 4096)
    for name, columns in (("time_in", 256), ("vector_in", 768), ("guidance_in", 256)):
        yield from random.linear(f"{DIFFUSION}{name}.in_layer", width, columns)
        yield from random.linear(f"{DIFFUSION}{name}.out_layer", width, width)
    for i in range(double):
        for side in ("img", "txt"):
            block = f"{DIFFUSION}double_blocks.{i}.{side}"
            yield from random.linear(f"{block}_mod.lin", 6 * width, width)
            yield from random.linear(f"{block}_attn.qkv", 3 * width, width)
            yield from random.linear(f"{block}_attn.proj", width, width)
            yield from scales(f"double_blocks.{i}.{side}_attn.norm")
            yield from random.linear(f"{block}_mlp.0", 4 * width, width)
            yield from random.linear(f"{block}_mlp.2", width, 4 * width)
    for i in range(single):
        block = f"{DIFFUSION}single_blocks.{i}"
        yield from random.linear(f"{block}.linear1", 7 * width, width)
        yield from random.linear(f"{block}.linear2", width, 5 * width)
        yield from random.linear(f"{block}.modulation.lin", 3 * width, width)
        yield from scales(f"single_blocks.{i}.norm")
    yield from random.linear(f"{DIFFUSION}final_layer.linear", 64, width)
    yield from random.linear(f"{DIFFUSION}final_layer.adaLN_modulation.1", 2 * width, width)


def wan(random: Random, layers: int = 30, width: int = 1536) -> Tensors:
    """The transformer of Wan 2.1 T2V 1.3B."""
    patches = random.vector(width * 16 * 4).reshape(width * 16, 1, 2, 2).astype(np.float16)
    yield f"{DIFFUSION}patch_embedding.weight", patches, None
    yield f"{DIFFUSION}patch_embedding.bias", np.zeros(width, np.float32), None
    for name, columns in (("text_embedding", 4096), ("time_embedding", 256)):
        yield from random.linear(f"{DIFFUSION}{name}.0", width, columns)
        yield from random.linear(f"{DIFFUSION}{name}.2", width, width)
    yield from random.linear(f"{DIFFUSION}time_projection.1", 6 * width, width)
    for i in range(layers):
        block = f"{DIFFUSION}blocks.{i}"
        yield f"{block}.modulation", random.vector(6 * width).reshape(1, 6, width), None
        yield from random.norm(f"{block}.norm3", width)
        for attention in ("self_attn", "cross_attn"):
            for part in "qkvo":
                yield from random.linear(f"{block}.{attention}.{part}", width, width)
            for part in "qk":
                yield f"{block}.{attention}.norm_{part}.weight", np.ones(width, np.float32), None
        yield from random.linear(f"{block}.ffn.0", 8960, width)
        yield from random.linear(f"{block}.ffn.2", width, 8960)
    yield f"{DIFFUSION}head.modulation", random.vector(2 * width).reshape(1, 2, width), None
    yield from random.linear(f"{DIFFUSION}head.head", 4 * 16, width)


def t5(random: Random, *, words: int = 32128, places_in_each: bool = False) -> Tensors:
    """The text encoder of FLUX and SD 3, T5-XXL, or that of Wan, UMT5-XXL; their sizes are fixed in the engine."""
    prefix, width, inner = "text_encoders.t5xxl.transformer.", 4096, 10240
    yield from random.linear(f"{prefix}shared", words, width, bias=False)
    for i in range(24):
        block = f"{prefix}encoder.block.{i}"
        for part in "qkvo":
            yield from random.linear(f"{block}.layer.0.SelfAttention.{part}", width, width, bias=False)
        if i == 0 or places_in_each:
            places = random.vector(32 * 64).reshape(32, 64)
            yield f"{block}.layer.0.SelfAttention.relative_attention_bias.weight", places, None
        for part, rows, columns in (("wi_0", inner, width), ("wi_1", inner, width), ("wo", width, inner)):
            yield from random.linear(f"{block}.layer.1.DenseReluDense.{part}", rows, columns, bias=False)
        for layer in (0, 1):
            yield f"{block}.layer.{layer}.layer_norm.weight", np.ones(width, np.float32), None
    yield f"{prefix}encoder.final_layer_norm.weight", np.ones(width, np.float32), None


def video_auto_encoder(random: Random) -> Tensors:
    """TAEHV for 16 channels of latents: three times a double in size, twice in time."""

    def memory(name: str, width: int) -> Tensors:
        yield from random.conv(f"{name}.conv.0", width, 2 * width)
        for i in (2, 4):
            yield from random.conv(f"{name}.conv.{i}", width, width)

    def plain(name: str, rows: int, columns: int, side: int) -> Tensors:
        yield from itertools.islice(random.conv(name, rows, columns, side), 1)  # without its bias

    yield from random.conv("tae.decoder.1", 256, 16)
    layer = 3
    for width, after, grow in ((256, 128, 1), (128, 64, 2), (64, 64, 2)):
        for i in range(3):
            yield from memory(f"tae.decoder.{layer + i}", width)
        yield from plain(f"tae.decoder.{layer + 4}.conv", width * grow, width, 1)
        yield from plain(f"tae.decoder.{layer + 5}", after, width, 3)
        layer += 6
    yield from random.conv(f"tae.decoder.{layer + 1}", 3, 64)
    yield from random.conv("tae.encoder.0", 64, 3)
    layer = 2
    for shrink in (2, 2, 1):
        yield from plain(f"tae.encoder.{layer}.conv", 64, 64 * shrink, 1)
        yield from plain(f"tae.encoder.{layer + 1}", 64, 64, 3)
        for i in range(3):
            yield from memory(f"tae.encoder.{layer + 2 + i}", 64)
        layer += 5
    yield from random.conv(f"tae.encoder.{layer}", 16, 64)


def write_sd1(path: Path) -> Path:
    """SD 1.5: UNet, CLIP-L, TAESD; 1.3 GB."""
    random = Random()
    return _write(path, unet(random, SD1), text_encoder("cond_stage_model."), auto_encoder())


def write_control_net(path: Path) -> Path:
    """ControlNet for SD 1; 0.6 GB."""
    return _write(path, control_net(Random()))


def write_sdxl(path: Path) -> Path:
    """SDXL: UNet, CLIP-L, CLIP-G, TAESD; 2.8 GB."""
    random = Random()
    encoders = (text_encoder("cond_stage_model."), large_text_encoder(random, "cond_stage_model.1."))
    return _write(path, unet(random, SDXL), *encoders, auto_encoder())


def write_sd3(path: Path) -> Path:
    """SD 3 medium: transformer, CLIP-L, CLIP-G, TAESD3; 1.9 GB."""
    random, prefix = Random(), "text_encoders."
    encoders = (text_encoder(f"{prefix}clip_l."), large_text_encoder(random, f"{prefix}clip_g."))
    return _write(path, mmdit(random), *encoders, taef1(Weights(2)))


def write_flux(path: Path) -> Path:
    """FLUX: a part of the transformer, CLIP-L, T5-XXL, TAEF1; 3.7 GB."""
    random = Random()
    return _write(path, flux(random), text_encoder("text_encoders.clip_l."), t5(random), taef1(Weights(2)))


def write_wan(path: Path) -> Path:
    """Wan 2.1 T2V 1.3B: transformer, UMT5-XXL, TAEHV; 4.1 GB."""
    random = Random()
    return _write(path, wan(random), t5(random, words=256384, places_in_each=True), video_auto_encoder(random))


def _write(path: Path, *parts: Tensors) -> Path:
    model = GGUFContext.empty()
    model.set("general.architecture", "sd")
    for part in parts:
        for name, data, kind in part:
            model.add_tensor(name, data, kind)
    model.write(path)
    return path
