"""A llama model of 40 KB with random weights: 290 tokens, one layer of width 32."""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path

import numpy as np

from cyllama.llama import GGUFContext

__all__ = ["temporary_path", "tiny_model", "tiny_model_path"]

WIDTH, FEED_FORWARD, CONTEXT = 32, 64, 256
WORDS = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁abcdefghijklmnopqrstuvwxyz0123"]
UNKNOWN, CONTROL, BYTE, NORMAL = 2, 3, 6, 1
TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m.role + '|>' + (m.content or '') + eos_token }}{% endfor %}"
    "{% if tools %}{{ tools | tojson }}{% endif %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@functools.cache
def tiny_model() -> bytes:
    """Return the content of the model's file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.gguf"
        _context().write(path)
        return path.read_bytes()


@functools.cache
def tiny_model_path() -> Path:
    """Return the path of the model."""
    path = temporary_path("tiny.gguf")
    path.write_bytes(tiny_model())
    return path


@functools.cache
def temporary_path(name: str) -> Path:
    """Return a path in the folder of this process, which the driver removes."""
    folder = Path(tempfile.gettempdir()) / f"cyllama-fuzz-{os.getpid()}"
    folder.mkdir(exist_ok=True)
    return folder / name


def _context() -> GGUFContext:
    model = GGUFContext.empty()
    kinds = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256]
    for key, value in {
        "general.architecture": "llama",
        "general.name": "tiny",
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": WORDS,
        "tokenizer.chat_template": TEMPLATE,
    }.items():
        model.set(key, value)
    model.set("tokenizer.ggml.scores", np.zeros(len(WORDS), np.float32))
    model.set("tokenizer.ggml.token_type", np.array(kinds + [NORMAL] * (len(WORDS) - len(kinds)), np.int32))
    for key, number in {
        "general.file_type": 0,
        "llama.block_count": 1,
        "llama.context_length": CONTEXT,
        "llama.embedding_length": WIDTH,
        "llama.feed_forward_length": FEED_FORWARD,
        "llama.attention.head_count": 1,
        "llama.rope.dimension_count": WIDTH,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }.items():
        model.set(key, number, "u32")
    model.set("llama.attention.layer_norm_rms_epsilon", 1e-5, "f32")
    random = np.random.default_rng(0)
    for name, shape in {
        "token_embd": (len(WORDS), WIDTH),
        "output_norm": (WIDTH,),
        **{f"blk.0.{part}_norm": (WIDTH,) for part in ("attn", "ffn")},
        **{f"blk.0.attn_{part}": (WIDTH, WIDTH) for part in ("q", "k", "v", "output")},
        **{f"blk.0.ffn_{part}": (FEED_FORWARD, WIDTH) for part in ("gate", "up")},
        "blk.0.ffn_down": (WIDTH, FEED_FORWARD),
    }.items():
        weights = np.ones(shape) if len(shape) == 1 else random.normal(0, 0.2, shape)
        model.add_tensor(f"{name}.weight", weights.astype(np.float16 if len(shape) == 2 else np.float32))
    return model
