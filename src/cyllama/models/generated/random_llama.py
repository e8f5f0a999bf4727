"""``tiny-random-llama``: a llama model generated from a seed, with the same bytes on every machine."""

from __future__ import annotations

import math
from collections.abc import Sequence, Sized
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

__all__ = ["tiny_random_llama"]

WIDTH = 32
HEADS, KV_HEADS, HEAD_SIZE = 2, 1, 32  # grouped queries; 32 is what a quantized KV cache needs
FEED_FORWARD = 64
LAYERS = 2
CONTEXT = 2048
SEED = 20240229


def tiny_random_llama(inputs: Sequence[Path], destination: Path) -> None:
    """Generate a llama model with random weights and a real vocabulary.

    Two layers of width 32, two heads of 32 that share one key and value head, tied embeddings in F16, the
    rest in F32, context 2,048. Its text is random, but depends on the whole context.

    Parameters
    ----------
    inputs : sequence of path
        One GGUF file with an SPM vocabulary.
    destination : path
        The GGUF file to write.
    """
    from cyllama._native._gguf import GGUFContext

    vocabulary = GGUFContext.from_file(inputs[0])
    model = GGUFContext.empty()
    model.copy_from(vocabulary)
    words = len(cast(Sized, vocabulary.get("tokenizer.ggml.tokens")))
    values: dict[str, Any] = {
        "general.name": "tiny-random-llama",
        "general.file_type": 1,
        "llama.block_count": LAYERS,
        "llama.context_length": CONTEXT,
        "llama.embedding_length": WIDTH,
        "llama.feed_forward_length": FEED_FORWARD,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS,
        "llama.attention.key_length": HEAD_SIZE,
        "llama.attention.value_length": HEAD_SIZE,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": HEAD_SIZE,
        "llama.vocab_size": words,
    }
    kinds = {
        str: vocabulary.type_of("general.name"),
        int: vocabulary.type_of("llama.block_count"),
        float: vocabulary.type_of("llama.attention.layer_norm_rms_epsilon"),
    }
    for key, value in values.items():
        model.set(key, value, kinds[type(value)])
    for name, tensor in _llama_tensors(words):
        model.add_tensor(name, tensor)
    model.write(destination)


def _llama_tensors(words: int) -> Sequence[tuple[str, npt.NDArray[Any]]]:
    random = np.random.PCG64(SEED)
    ones = np.ones(WIDTH, np.float32)

    def matrix(rows: int, columns: int, gain: float = 1.0) -> npt.NDArray[np.float32]:
        # uniform numbers of raw bits, which are reproducible, unlike log and sin of a normal distribution
        bits = (random.random_raw(rows * columns) >> np.uint64(40)).astype(np.float32)
        scale = np.float32(gain * math.sqrt(3.0 / columns))  # standard deviation gain / sqrt(columns)
        return ((bits / np.float32(1 << 23) - np.float32(1)) * scale).reshape(rows, columns)

    tensors: list[tuple[str, npt.NDArray[Any]]] = [
        ("token_embd.weight", matrix(words, WIDTH).astype(np.float16)),
        ("output_norm.weight", ones),
    ]
    for layer in range(LAYERS):
        shapes = {
            "attn_q": (HEADS * HEAD_SIZE, WIDTH, 2.0),
            "attn_k": (KV_HEADS * HEAD_SIZE, WIDTH, 2.0),
            "attn_v": (KV_HEADS * HEAD_SIZE, WIDTH, 2.0),
            "attn_output": (WIDTH, HEADS * HEAD_SIZE, 2.0),
            "ffn_gate": (FEED_FORWARD, WIDTH, 2.0),
            "ffn_up": (FEED_FORWARD, WIDTH, 2.0),
            "ffn_down": (WIDTH, FEED_FORWARD, 2.0),
        }
        tensors += [(f"blk.{layer}.{name}.weight", matrix(*shape)) for name, shape in shapes.items()]
        tensors += [(f"blk.{layer}.{name}.weight", ones) for name in ("attn_norm", "ffn_norm")]
    return tensors
