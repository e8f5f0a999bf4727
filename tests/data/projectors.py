"""Projector files with random weights, small enough to be made in a moment: for pictures, for sound, or for both."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cyllama.llama import GGUFContext

WIDTH, HEADS, INNER = 32, 2, 64  # of the encoders
SIDE, PATCH = 56, 14  # pixels
FRAMES, BANDS, STACK = 1500, 80, 10  # of half a minute of sound

Tensors = dict[str, np.ndarray]


class Weights:
    """Random numbers from a seed."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def __call__(self, *shape: int) -> np.ndarray:
        return self._random.normal(0, 0.2, shape).astype(np.float32)

    def linear(self, name: str, n_out: int, n_in: int, *, bias: bool = True) -> Tensors:
        """A matrix and what is added."""
        return {f"{name}.weight": self(n_out, n_in)} | ({f"{name}.bias": self(n_out)} if bias else {})

    def norm(self, name: str, n: int = WIDTH) -> Tensors:
        """A layer norm that changes little."""
        return {f"{name}.weight": np.ones(n, np.float32), f"{name}.bias": self(n)}


def write_projector(
    path: Path, width: int, *, vision: bool = True, audio: bool = False, seed: int = 0, layers: int = 1
) -> Path:
    """Write a projector (``clip``) to vectors of `width`; a picture becomes 4 of them, half a minute of sound 150."""
    weights = Weights(seed)
    with GGUFContext.empty() as file:
        file.set("general.architecture", "clip")
        file.set("clip.use_gelu", True)
        for kind, there in (("vision", vision), ("audio", audio)):
            file.set(f"clip.has_{kind}_encoder", there)
            if there:
                sizes = {"embedding_length": WIDTH, "feed_forward_length": INNER, "block_count": layers,
                         "projection_dim": width, "attention.head_count": HEADS}  # fmt: skip
                _set(file, kind, sizes)
                file.set(f"clip.{kind}.attention.layer_norm_epsilon", 1e-6, "f32")
        tensors: Tensors = {}
        if vision:
            tensors |= _encoder(weights, "v", layers) | _vision(file, weights, width)
        if audio:
            tensors |= _encoder(weights, "a", layers, key_bias=False) | _audio(file, weights, width)
        for name, data in tensors.items():
            file.add_tensor(name, np.ascontiguousarray(data))
        file.write(path)
    return path


def _set(file: GGUFContext, kind: str, values: dict[str, int]) -> None:
    for name, value in values.items():
        file.set(f"clip.{kind}.{name}", value, "u32")


def _encoder(weights: Weights, prefix: str, layers: int, *, key_bias: bool = True) -> Tensors:
    found = weights.norm(f"{prefix}.post_ln")
    for i in range(layers):
        block = f"{prefix}.blk.{i}."
        for name in ("attn_q", "attn_k", "attn_v", "attn_out"):
            found |= weights.linear(block + name, WIDTH, WIDTH, bias=name != "attn_k" or key_bias)
        found |= weights.linear(f"{block}ffn_up", INNER, WIDTH) | weights.linear(f"{block}ffn_down", WIDTH, INNER)
        found |= weights.norm(f"{block}ln1") | weights.norm(f"{block}ln2")
    return found


def _vision(file: GGUFContext, weights: Weights, width: int) -> Tensors:
    file.set("clip.vision.projector_type", "internvl")
    sizes = {"image_size": SIDE, "patch_size": PATCH, "projector.scale_factor": 2, "preproc_min_tiles": 1,
             "preproc_max_tiles": 1}  # fmt: skip
    _set(file, "vision", sizes)
    for name in ("image_mean", "image_std"):
        file.set(f"clip.vision.{name}", np.full(3, 0.5, np.float32))
    return {
        "v.class_embd": weights(WIDTH),
        "v.patch_embd.weight": weights(WIDTH, 3, PATCH, PATCH),
        "v.patch_embd.bias": weights(WIDTH),
        "v.position_embd.weight": weights((SIDE // PATCH) ** 2 + 1, WIDTH),
        **weights.norm("mm.model.mlp.0", 4 * WIDTH),
        **weights.linear("mm.model.mlp.1", INNER, 4 * WIDTH),
        **weights.linear("mm.model.mlp.3", width, INNER),
    }


def _audio(file: GGUFContext, weights: Weights, width: int) -> Tensors:
    file.set("clip.audio.projector_type", "ultravox")
    _set(file, "audio", {"num_mel_bins": BANDS, "projector.stack_factor": STACK})
    found = {"a.position_embd.weight": weights(FRAMES, WIDTH)}
    for i, inputs in ((1, BANDS), (2, WIDTH)):
        found[f"a.conv1d.{i}.weight"] = weights(WIDTH, inputs, 3).astype(np.float16)
        found[f"a.conv1d.{i}.bias"] = weights(WIDTH, 1)
    return found | {
        "mm.a.norm_pre.weight": np.ones(STACK * WIDTH, np.float32),
        "mm.a.mlp.1.weight": weights(INNER, STACK * WIDTH),
        "mm.a.norm_mid.weight": np.ones(INNER // 2, np.float32),
        "mm.a.mlp.2.weight": weights(width, INNER // 2),
    }
