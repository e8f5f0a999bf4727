"""``tiny-shapes``: a small text-to-image model of coloured shapes.

The transformer was trained with ``scripts/train_tiny_diffusion.py``; its weights are beside this module. The weights of
the text encoder and of the auto-encoder are constructed here. All have the architecture of FLUX.

The vocabulary covers prompts such as ``"a large red circle on yellow"``. For two shapes, ``"a blue ring left of a green
square"``, the model generates both, but not reliably in the right places.
"""

from __future__ import annotations

import importlib.resources
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["COLOURS", "RELATIONS", "SHAPES", "SIDE", "SIZES", "WEIGHTS", "WORDS", "encode", "tiny_shapes"]

WEIGHTS = "tiny-shapes-flux.gguf"  # file of the transformer, beside this module
SIDE = 192  # default image size in pixels; the model was also trained with 128

Array = npt.NDArray[Any]
Tensors = Iterator[tuple[str, Array, str | None]]  # name, data, type of raw bytes

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.16, 0.16),
    "green": (0.16, 0.70, 0.24),
    "blue": (0.20, 0.31, 0.86),
    "yellow": (0.95, 0.85, 0.20),
    "orange": (0.98, 0.55, 0.10),
    "purple": (0.55, 0.20, 0.70),
    "pink": (0.98, 0.62, 0.78),
    "black": (0.08, 0.08, 0.08),
    "gray": (0.52, 0.52, 0.52),
    "white": (1.0, 1.0, 1.0),
}
SHAPES = ("circle", "square", "triangle", "cross", "ring")
SIZES = ("small", "large")
RELATIONS = {
    "left": ("left", "of"),
    "right": ("right", "of"),
    "above": ("above",),
    "below": ("below",),
    "and": ("and",),
}

# Each word is one token of CLIP's vocabulary; words of a group are synonyms.
_TOKENS: tuple[dict[str, int], ...] = (
    {"a": 320, "an": 550, "the": 518},
    {"of": 539},
    {"on": 525},
    {"and": 537},
    {"left": 1823},
    {"right": 1155},
    {"above": 4348, "over": 962},
    {"below": 3788, "under": 1798, "beneath": 16850},
    {"small": 2442, "little": 1274, "tiny": 5591},
    {"large": 3638, "big": 1205, "huge": 2699},
    {"red": 736, "crimson": 19437},
    {"green": 1901},
    {"blue": 1746},
    {"yellow": 4481},
    {"orange": 4287},
    {"purple": 5496, "violet": 16118},
    {"pink": 3360},
    {"black": 1449},
    {"gray": 7048, "grey": 5046},
    {"white": 1579},
    {"circle": 7117, "disc": 10712, "disk": 17970, "dot": 7004},
    {"square": 3999, "box": 2063},
    {"triangle": 14615},
    {"cross": 3417, "plus": 3097},
    {"ring": 2540, "donut": 18471},
)
WORDS = {word: group for group, words in enumerate(_TOKENS) for word in words}

# The text encoder has the sizes of CLIP-L. The embedding of a token is a code of 64 numbers, +1 or -1; that of a
# position is a value in one dimension. In the first layer, head h attends to position h + 1 (or to the beginning of
# the text, which has no code, if there is none) and writes its code to the h-th part of the vector, so that the pooled
# vector is the list of the words in order. The other layers have no effect.
_WIDTH, _LAYERS, _HEADS, _VOCABULARY, _CONTEXT = 768, 12, 12, 49408, 77
_CODE = _WIDTH // _HEADS
_MARK = 4.0  # the value of a position
_QUERY = 48.0  # so large that a head attends to one position alone
_BEGIN = 1 / 8  # relative attention to the beginning of the text

# The auto-encoder. 15 of the 16 channels of a latent are the colours from -1 to 1, five times, so that averaging
# reduces noise. Internally it uses 1 - rgb, which neither ReLU nor zero padding changes.
_CHANNELS, _COPIES, _TAE = 16, 5, 64


def _codes() -> Array:
    """Return orthogonal codes of 64 numbers with mean zero, one per group of words."""
    hadamard = np.ones((1, 1), np.float32)
    while len(hadamard) < _CODE:
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    return hadamard[1 : 1 + len(_TOKENS)]


def encode(prompts: Sequence[Sequence[str]]) -> npt.NDArray[np.float32]:
    """Return the output of the text encoder, as the engine computes it; used for training.

    Parameters
    ----------
    prompts : sequence of sequence of str
        Up to 12 words each; unknown words are ignored, but keep their position.

    Returns
    -------
    ndarray of float32, shape (prompts, 768)
    """
    codes = _codes()
    found = np.zeros((len(prompts), _HEADS, _CODE), np.float32)
    marks = np.zeros((len(prompts), _WIDTH), np.float32)
    code = np.zeros(_WIDTH, np.float32)
    code[:_CODE], code[_CODE] = codes[0], _MARK
    seen = _normed(code)[0]  # 1 of a code, after the norm
    for row, words in enumerate(prompts):
        for slot, word in enumerate(words[:_HEADS]):
            if word in WORDS:
                found[row, slot] = codes[WORDS[word]] * seen
        marks[row, _CODE + len(words) + 1] = _MARK  # of the end's own position
    return _normed(marks + found.reshape(len(prompts), _WIDTH)).astype(np.float32)


def _normed(x: Array) -> Array:
    normed: Array = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + np.float32(1e-5))
    return normed


def tiny_shapes(inputs: Sequence[Path], destination: Path) -> None:
    """Write the trained transformer, its text encoder and its auto-encoder in one GGUF file.

    Parameters
    ----------
    inputs : sequence of path
        None: the weights are in the package.
    destination : path
        The GGUF file to write, which is both ``model_path`` and ``taesd_path``.
    """
    from cyllama._native._gguf import GGUFContext

    model = GGUFContext.empty()
    model.set("general.architecture", "flux")
    model.set("general.name", "tiny-shapes")
    model.set("modelspec.resolution", f"{SIDE}x{SIDE}")
    with importlib.resources.as_file(importlib.resources.files(__package__) / WEIGHTS) as file:
        for part in (_transformer(GGUFContext.from_file(file)), _clip_l(), _taef1()):
            for name, data, kind in part:
                model.add_tensor(name, data, kind)
    model.write(destination)


def _transformer(trained: Any) -> Tensors:
    """Yield the trained tensors, and zeros for the input of the missing text encoder T5."""
    for tensor in trained.tensors():
        data, kind = trained.tensor_data(tensor.name), None
        if tensor.type.name == "Q8_0":
            data, kind = data.reshape(*tensor.shape[:-1], -1), "Q8_0"
        yield tensor.name, data, kind
        if tensor.name.endswith("txt_in.bias"):
            yield tensor.name.replace("bias", "weight"), np.zeros((len(data), 4096), np.float16), None


def _q4_0(rows: Array, step: float) -> Array:
    """Return rows of Q4_0 blocks for multiples of `step` from -8 to 7, which are exact."""
    whole = np.rint(rows.reshape(-1, 32) / np.float32(step)).astype(np.int8)
    raw = np.empty((len(whole), 18), np.uint8)
    raw[:, :2] = np.array([step], np.float16).view(np.uint8)
    nibbles = (whole + 8).astype(np.uint8)
    raw[:, 2:] = nibbles[:, :16] | nibbles[:, 16:] << 4
    return raw.reshape(len(rows), -1)


def _clip_l() -> Tensors:
    """Yield the tensors of the text encoder."""
    prefix = "text_encoders.clip_l.transformer.text_model."
    nothing = np.zeros((_WIDTH, _WIDTH), np.float32)
    key, value = nothing.copy(), nothing.copy()
    query = np.zeros(_WIDTH, np.float32)
    for head in range(_HEADS):
        row = head * _CODE
        query[row] = _QUERY
        key[row, _CODE + head + 1] = 1
        key[row, _CODE] = _BEGIN
        value[row : row + _CODE, :_CODE] = np.eye(_CODE)

    def linear(name: str, weight: Array, bias: Array | None = None) -> Tensors:
        yield f"{prefix}{name}.weight", _q4_0(weight, -1 / 8), "Q4_0"
        yield f"{prefix}{name}.bias", np.zeros(len(weight), np.float32) if bias is None else bias, None

    def norm(name: str) -> Tensors:
        yield f"{prefix}{name}.weight", np.ones(_WIDTH, np.float32), None
        yield f"{prefix}{name}.bias", np.zeros(_WIDTH, np.float32), None

    tokens = np.zeros((_VOCABULARY, _WIDTH), np.float32)
    for group, (code, words) in enumerate(zip(_codes(), _TOKENS, strict=True)):
        assert group == WORDS[next(iter(words))]
        tokens[list(words.values()), :_CODE] = code
    positions = np.zeros((_CONTEXT, _WIDTH), np.float32)
    positions[np.arange(_CONTEXT), _CODE + np.arange(_CONTEXT)] = _MARK
    yield f"{prefix}embeddings.token_embedding.weight", _q4_0(tokens, 1 / 4), "Q4_0"
    yield f"{prefix}embeddings.position_embedding.weight", positions, None
    for i in range(_LAYERS):
        layer, first = f"encoder.layers.{i}", i == 0
        yield from linear(f"{layer}.self_attn.q_proj", nothing, query if first else None)
        yield from linear(f"{layer}.self_attn.k_proj", key if first else nothing)
        yield from linear(f"{layer}.self_attn.v_proj", value if first else nothing)
        yield from linear(f"{layer}.self_attn.out_proj", np.eye(_WIDTH, dtype=np.float32) if first else nothing)
        yield from norm(f"{layer}.layer_norm1")
        yield from norm(f"{layer}.layer_norm2")
        yield from linear(f"{layer}.mlp.fc1", np.zeros((4 * _WIDTH, _WIDTH), np.float32))
        yield from linear(f"{layer}.mlp.fc2", np.zeros((_WIDTH, 4 * _WIDTH), np.float32))
    yield from norm("final_layer_norm")


def _taef1() -> Tensors:
    """Yield the tensors of the auto-encoder: three scalings by two, each smoothed by 1 2 1; other blocks do nothing."""
    smooth = np.outer([1, 2, 1], [1, 2, 1]) / np.float32(16)

    def conv(
        name: str, rows: int, columns: int, taps: dict[tuple[int, int], Any], bias: Array | float | None = 0.0
    ) -> Tensors:
        weight = np.zeros((rows, columns, 3, 3), np.float16)
        for (row, column), tap in taps.items():
            weight[row, column] = tap
        yield f"tae.{name}.weight", weight, None
        if bias is not None:
            yield f"tae.{name}.bias", np.broadcast_to(np.float32(bias), (rows,)).copy(), None

    def middle(value: float) -> Array:
        tap = np.zeros((3, 3), np.float32)
        tap[1, 1] = value
        return tap

    def some(rows: int, used: int, value: float) -> Array:
        return np.where(np.arange(rows) < used, np.float32(value), np.float32(0))

    def block(name: str) -> Tensors:
        for i in (0, 2, 4):
            yield from conv(f"{name}.conv.{i}", _TAE, _TAE, {})

    copies = [(colour, colour + 3 * copy) for colour in range(3) for copy in range(_COPIES)]
    keep = {(colour, colour): smooth for colour in range(3)}
    invert = {(colour, colour): middle(-1) for colour in range(3)}
    # The engine bends latents by 3 tanh(x / 3) before the first layer; this slope makes 1 come out as 1.
    slope = -0.5 / (_COPIES * 3 * math.tanh(1 / 3))
    yield from conv("decoder.layers.0", _TAE, _CHANNELS, dict.fromkeys(copies, middle(slope)), some(_TAE, 3, 0.5))
    layer = 2  # 1 is a ReLU
    for _ in range(3):
        for _ in range(3):
            yield from block(f"decoder.layers.{layer}")
            layer += 1
        yield from conv(f"decoder.layers.{layer + 1}", _TAE, _TAE, keep, None)  # after the doubling
        layer += 2
    yield from block(f"decoder.layers.{layer}")
    yield from conv(f"decoder.layers.{layer + 1}", 3, _TAE, invert, 1.0)
    yield from conv("encoder.layers.0", _TAE, 3, invert, some(_TAE, 3, 1.0))
    yield from block("encoder.layers.1")
    layer = 2
    for _ in range(3):
        yield from conv(f"encoder.layers.{layer}", _TAE, _TAE, keep, None)
        for i in range(3):
            yield from block(f"encoder.layers.{layer + 1 + i}")
        layer += 4
    ink = {(channel, colour): middle(-2) for colour, channel in copies}
    yield from conv(f"encoder.layers.{layer}", _CHANNELS, _TAE, ink, some(_CHANNELS, 3 * _COPIES, 1.0))
