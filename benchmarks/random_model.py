"""A llama model of 0.66 billion random weights, for measurements of speed: packages carry no real one of this size.

usage: python -m benchmarks.random_model TARGET
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import RESULTS, model, program, run

WIDTH, FEED_FORWARD, LAYERS = 2048, 5632, 12
HEADS, KV_HEADS = 32, 4
VOCABULARY = "vocab-llama-spm"


def quantized(kind: str) -> str:
    """Return the model with weights of another type, created on first use."""
    target, source = RESULTS / f"random-{kind}.gguf", RESULTS / "random-F16.gguf"
    if not source.exists():
        source.parent.mkdir(parents=True, exist_ok=True)
        write(source)
    if not target.exists():
        run([program("llama-quantize"), str(source), str(target), kind])
    return str(target)


def read_size(kind: str) -> int:
    """Return the bytes of weights that each generated token reads: all but the embeddings."""
    from cyllama._native._gguf import GGUFContext

    tensors = GGUFContext.from_file(quantized(kind)).tensors()
    return sum(tensor.size for tensor in tensors if tensor.name != "token_embd.weight")


def write(target: Path) -> None:
    """Write the model with F16 weights."""
    from cyllama._native._gguf import GGUFContext

    vocabulary = GGUFContext.from_file(model(VOCABULARY))
    written = GGUFContext.empty()
    written.copy_from(vocabulary)
    n_tokens = len(vocabulary.get("tokenizer.ggml.tokens"))
    values: dict[str, Any] = {
        "general.file_type": 1,
        "llama.block_count": LAYERS,
        "llama.context_length": 4096,
        "llama.embedding_length": WIDTH,
        "llama.feed_forward_length": FEED_FORWARD,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": WIDTH // HEADS,
        "llama.vocab_size": n_tokens,
    }
    kinds = {
        int: vocabulary.type_of("llama.block_count"),
        float: vocabulary.type_of("llama.attention.layer_norm_rms_epsilon"),
    }
    for key, value in values.items():
        written.set(key, value, kinds[type(value)])
    for name, tensor in tensors(n_tokens):
        written.add_tensor(name, tensor)
    written.write(target)


def tensors(n_tokens: int) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Return the names and the values of the weights."""
    random = np.random.default_rng(0)
    ones = np.ones(WIDTH, np.float32)

    def matrix(rows: int, columns: int) -> np.ndarray[Any, Any]:
        values = random.standard_normal((rows, columns), np.float32) / np.float32(np.sqrt(columns))
        return values.astype(np.float16)

    yield "token_embd.weight", matrix(n_tokens, WIDTH)
    yield "output.weight", matrix(n_tokens, WIDTH)
    yield "output_norm.weight", ones
    kv_width = WIDTH // HEADS * KV_HEADS
    shapes = {
        "attn_q": (WIDTH, WIDTH),
        "attn_k": (kv_width, WIDTH),
        "attn_v": (kv_width, WIDTH),
        "attn_output": (WIDTH, WIDTH),
        "ffn_gate": (FEED_FORWARD, WIDTH),
        "ffn_up": (FEED_FORWARD, WIDTH),
        "ffn_down": (WIDTH, FEED_FORWARD),
    }
    for layer in range(LAYERS):
        for name in ("attn_norm", "ffn_norm"):
            yield f"blk.{layer}.{name}.weight", ones
        for name, (rows, columns) in shapes.items():
            yield f"blk.{layer}.{name}.weight", matrix(rows, columns)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
