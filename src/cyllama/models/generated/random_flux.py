"""``tiny-flux-random``: a small FLUX generated from a seed, with the same bytes on every machine."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["tiny_flux_random"]

SEED = 20240801
WIDTH, HEAD = 256, 128  # of the transformer; the engine supports rotary embeddings for heads of 128 only
DOUBLE_BLOCKS, SINGLE_BLOCKS = 1, 2
T5_WIDTH, CLIP_WIDTH, CLIP_LAYERS, CLIP_WORDS, CLIP_CONTEXT = 4096, 768, 12, 49408, 77
LATENTS, PATCH = 16, 4  # channels of a latent, latents of a patch
TAE_WIDTH = 64

Array = npt.NDArray[Any]
Tensors = Iterator[tuple[str, Array, str | None]]  # name, data, type of raw bytes


def tiny_flux_random(inputs: Sequence[Path], destination: Path) -> None:
    """Generate a FLUX with random weights, its text encoder and its auto-encoder in one GGUF file.

    FLUX (guidance-distilled) of width 256 with one double and two single blocks in F16, CLIP-L in Q4_0, TAEF1 in F16.
    Its images are noise that depends on the prompt, the guidance and the seed. The file is both ``model_path`` and
    ``taesd_path``.

    Parameters
    ----------
    inputs : sequence of path
        None.
    destination : path
        The GGUF file to write.
    """
    from cyllama._native._gguf import GGUFContext

    weights = Weights(SEED)
    model = GGUFContext.empty()
    model.set("general.architecture", "flux")
    model.set("general.name", "tiny-flux-random")
    for part in (flux(weights), clip_l(weights), taef1(weights)):
        for name, data, kind in part:
            model.add_tensor(name, data, kind)
    model.write(destination)


class Weights:
    """Random numbers of raw bits, which are reproducible, unlike log and sin of a normal distribution."""

    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)

    def f16(self, *shape: int, gain: float = 1.0) -> Array:
        """Return uniform numbers of mean 0 and standard deviation gain / sqrt(number of summands)."""
        bits = (self._bits.random_raw(math.prod(shape)) >> np.uint64(40)).astype(np.float32)
        scale = np.float32(gain * math.sqrt(3.0 / math.prod(shape[1:])))
        return ((bits / np.float32(1 << 23) - np.float32(1)) * scale).reshape(shape).astype(np.float16)

    def q4_0(self, rows: int, columns: int, deviation: float) -> Array:
        """Return rows of Q4_0 blocks as bytes: 32 numbers from -7 to 7 and their scale."""
        blocks = rows * columns // 32
        raw = np.empty((blocks, 18), np.uint8)
        raw[:, :2] = np.array([deviation / math.sqrt(17.5)], np.float16).view(np.uint8)  # 17.5: variance of -7 to 7
        nibbles = self._bits.random_raw(blocks * 2).view(np.uint8).reshape(blocks, 16)
        low, high = nibbles & 15, nibbles >> 4
        low[low == 0] = 8  # -8 has no counterpart
        high[high == 0] = 8
        raw[:, 2:] = low | high << 4
        return raw.reshape(rows, columns // 32 * 18)


def _f16(weights: Weights, name: str, rows: int, columns: int, gain: float = 1.0) -> Tensors:
    yield f"{name}.weight", weights.f16(rows, columns, gain=gain), None
    yield f"{name}.bias", np.zeros(rows, np.float32), None


def flux(weights: Weights) -> Tensors:
    """Yield the tensors of the transformer."""
    prefix = "model.diffusion_model."

    def linear(name: str, rows: int, columns: int, gain: float = 1.0) -> Tensors:
        return _f16(weights, prefix + name, rows, columns, gain)

    def scales(name: str) -> Tensors:
        for norm in ("query_norm", "key_norm"):
            yield f"{prefix}{name}.{norm}.scale", np.ones(HEAD, np.float32), None

    yield from linear("img_in", WIDTH, LATENTS * PATCH)
    yield from linear("txt_in", WIDTH, T5_WIDTH)
    for name, width in (("time_in", 256), ("vector_in", CLIP_WIDTH), ("guidance_in", 256)):
        yield from linear(f"{name}.in_layer", WIDTH, width)
        yield from linear(f"{name}.out_layer", WIDTH, WIDTH)
    for i in range(DOUBLE_BLOCKS):
        for side in ("img", "txt"):
            block = f"double_blocks.{i}.{side}"
            yield from linear(f"{block}_mod.lin", 6 * WIDTH, WIDTH, 0.5)
            yield from linear(f"{block}_attn.qkv", 3 * WIDTH, WIDTH)
            yield from linear(f"{block}_attn.proj", WIDTH, WIDTH)
            yield from scales(f"{block}_attn.norm")
            yield from linear(f"{block}_mlp.0", 4 * WIDTH, WIDTH)
            yield from linear(f"{block}_mlp.2", WIDTH, 4 * WIDTH)
    for i in range(SINGLE_BLOCKS):
        yield from linear(f"single_blocks.{i}.linear1", 7 * WIDTH, WIDTH)
        yield from linear(f"single_blocks.{i}.linear2", WIDTH, 5 * WIDTH)
        yield from linear(f"single_blocks.{i}.modulation.lin", 3 * WIDTH, WIDTH, 0.5)
        yield from scales(f"single_blocks.{i}.norm")
    yield from linear("final_layer.linear", LATENTS * PATCH, WIDTH)
    yield from linear("final_layer.adaLN_modulation.1", 2 * WIDTH, WIDTH, 0.5)


def clip_l(weights: Weights) -> Tensors:
    """The text encoder; its sizes are fixed in the engine."""
    prefix = "text_encoders.clip_l.transformer.text_model."

    def linear(name: str, rows: int, columns: int) -> Tensors:
        yield f"{prefix}{name}.weight", weights.q4_0(rows, columns, 1 / math.sqrt(columns)), "Q4_0"
        yield f"{prefix}{name}.bias", np.zeros(rows, np.float32), None

    def norm(name: str) -> Tensors:
        yield f"{prefix}{name}.weight", np.ones(CLIP_WIDTH, np.float32), None
        yield f"{prefix}{name}.bias", np.zeros(CLIP_WIDTH, np.float32), None

    yield f"{prefix}embeddings.token_embedding.weight", weights.q4_0(CLIP_WORDS, CLIP_WIDTH, 0.05), "Q4_0"
    positions = weights.f16(CLIP_CONTEXT, CLIP_WIDTH, gain=0.5).astype(np.float32)
    yield f"{prefix}embeddings.position_embedding.weight", positions, None
    for i in range(CLIP_LAYERS):
        layer = f"encoder.layers.{i}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from linear(f"{layer}.self_attn.{name}", CLIP_WIDTH, CLIP_WIDTH)
        yield from norm(f"{layer}.layer_norm1")
        yield from norm(f"{layer}.layer_norm2")
        yield from linear(f"{layer}.mlp.fc1", 4 * CLIP_WIDTH, CLIP_WIDTH)
        yield from linear(f"{layer}.mlp.fc2", CLIP_WIDTH, 4 * CLIP_WIDTH)
    yield from norm("final_layer_norm")


def taef1(weights: Weights) -> Tensors:
    """The auto-encoder: three times a half or a double, three blocks between."""

    def conv(name: str, rows: int, columns: int, *, gain: float = 1.4, bias: float | None = 0.0) -> Tensors:
        yield f"tae.{name}.weight", weights.f16(rows, columns, 3, 3, gain=gain), None
        if bias is not None:
            yield f"tae.{name}.bias", np.full(rows, bias, np.float32), None

    def block(name: str) -> Tensors:
        for i in (0, 2, 4):
            yield from conv(f"{name}.conv.{i}", TAE_WIDTH, TAE_WIDTH, gain=0.7)

    yield from conv("decoder.layers.0", TAE_WIDTH, LATENTS)
    layer = 2  # 1 is a ReLU
    for _ in range(3):
        for _ in range(3):
            yield from block(f"decoder.layers.{layer}")
            layer += 1
        yield from conv(f"decoder.layers.{layer + 1}", TAE_WIDTH, TAE_WIDTH, gain=1.0, bias=None)  # after the doubling
        layer += 2
    yield from block(f"decoder.layers.{layer}")
    yield from conv(f"decoder.layers.{layer + 1}", 3, TAE_WIDTH, gain=0.5, bias=0.5)  # images are 0 to 1
    yield from conv("encoder.layers.0", TAE_WIDTH, 3)
    yield from block("encoder.layers.1")
    layer = 2
    for _ in range(3):
        yield from conv(f"encoder.layers.{layer}", TAE_WIDTH, TAE_WIDTH, bias=None)
        for i in range(3):
            yield from block(f"encoder.layers.{layer + 1 + i}")
        layer += 4
    yield from conv(f"encoder.layers.{layer}", LATENTS, TAE_WIDTH)
