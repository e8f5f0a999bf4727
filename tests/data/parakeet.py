"""The Parakeet model of the tests: ten words and random weights, from upstream's generator.

No package has a trained model, so the tests compare with the output of parakeet-cli, not with the spoken text. The
generated model finds no text in any recording: random mel filters are partly negative, the logarithm of negative energy
is NaN, and the network turns NaN into 0. Here the filters become positive, and text more likely than other tokens.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cyllama.models._cache import cache_folder

GENERATOR = (
    Path(__file__).resolve().parents[2] / "thirdparty" / "whisper.cpp" / "models" / "generate-parakeet-test-model.py"
)
NUMBERS = (
    "n_vocab", "n_audio_ctx", "n_audio_state", "n_audio_head", "n_audio_layer", "n_mels", "ftype", "n_fft",
    "subsampling_factor", "n_subsampling_channels", "n_conv_kernel", "n_pred_dim", "n_pred_layers", "n_tdt_durations",
    "n_max_tokens",
)  # fmt: skip
FILTERS = 4 + 4 * len(NUMBERS)  # offset of the mel filters: two sizes, then the values
WORDS = ("<unk>", "<s>", "</s>", "a", "b", "c", "d", "e", "f", "g")
N_CONTROL, BLANK, LONGER = 3, 10, 12  # control tokens, the blank token and the longer duration among the outputs


def parakeet_model() -> Path:
    """Return the path of the model; it is generated once for each version of the generator and of this module."""
    version = hashlib.sha256(GENERATOR.read_bytes() + Path(__file__).read_bytes()).hexdigest()[:12]
    path = cache_folder("tests") / f"parakeet-{version}.bin"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(f".{os.getpid()}")
        subprocess.run([sys.executable, GENERATOR, unfinished], check=True, capture_output=True)
        unfinished.write_bytes(_with_likely_text(unfinished.read_bytes()))
        unfinished.replace(path)
    return path


def _with_likely_text(data: bytes) -> bytes:
    """Return the model with positive mel filters and more likely text."""
    start, end = FILTERS + 8, places(data)["window"]
    filters = np.abs(np.frombuffer(data[start:end], "<f4"))
    data = data[:start] + filters.tobytes() + data[end:]
    bias = weights(data, "joint.joint_net.2.bias").copy()
    bias[BLANK] -= 4
    bias[:N_CONTROL] -= 8
    bias[LONGER] += 3
    data = with_weights(data, "joint.joint_net.2.bias", bias)
    return with_weights(data, "joint.enc.weight", weights(data, "joint.enc.weight") / 2)


def number(data: bytes, name: str) -> int:
    """Return a number of the header."""
    return int(struct.unpack_from("<i", data, 4 + 4 * NUMBERS.index(name))[0])


def with_number(data: bytes, name: str, value: int) -> bytes:
    """Return the model with another number in its header."""
    at = 4 + 4 * NUMBERS.index(name)
    return data[:at] + struct.pack("<i", value) + data[at + 4 :]


def places(data: bytes) -> dict[str, int]:
    """Return the offsets of the sections of a model."""
    n_mels, n_bins = struct.unpack_from("<2i", data, FILTERS)
    window = FILTERS + 8 + 4 * n_mels * n_bins
    durations = window + 4 + 4 * struct.unpack_from("<i", data, window)[0]
    words = durations + 4 * number(data, "n_tdt_durations")
    tensors = words + 4
    for _ in range(struct.unpack_from("<i", data, words)[0]):
        tensors += 4 + struct.unpack_from("<i", data, tensors)[0]
    return {"filters": FILTERS, "window": window, "durations": durations, "words": words, "tensors": tensors}


def with_words(data: bytes, words: Sequence[str]) -> bytes:
    """Return the model with other words of the same number, so that its text has spaces and punctuation."""
    at = places(data)
    raw = [word.encode() for word in words]
    table = struct.pack("<i", len(raw)) + b"".join(struct.pack("<i", len(word)) + word for word in raw)
    return data[: at["words"]] + table + data[at["tensors"] :]


def tensors(data: bytes) -> dict[str, tuple[int, int]]:
    """Return the range of bytes of each tensor with its header."""
    found = {}
    position = places(data)["tensors"]
    while position < len(data):
        start = position
        n_dims, length, _ = struct.unpack_from("<3i", data, position)
        shape = struct.unpack_from(f"<{n_dims}i", data, position + 12)
        position += 12 + 4 * n_dims
        name = data[position : position + length].decode()
        size = 4
        for extent in shape:
            size *= extent
        position += length + size
        found[name] = (start, position)
    return found


def converted(data: bytes) -> bytes:
    """Return the model as ``convert-parakeet-to-ggml.py`` writes it: matrices in 16-bit floats, a count as a scalar."""
    parts = [with_number(data, "ftype", 1)[: places(data)["tensors"]]]
    for name, (start, _) in tensors(data).items():
        n_dims, length, _ = struct.unpack_from("<3i", data, start)
        shape = data[start + 12 : start + 12 + 4 * n_dims]
        is_matrix = n_dims >= 2 and not re.search(r"bias|norm|pre_encode\.conv|depthwise_conv", name)
        if name.endswith("num_batches_tracked"):
            n_dims, shape = 0, b""
        values = weights(data, name).astype("<f2" if is_matrix else "<f4")
        parts += [struct.pack("<3i", n_dims, length, is_matrix), shape, name.encode(), values.tobytes()]
    return b"".join(parts)


def weights(data: bytes, name: str) -> np.ndarray:
    """Return the values of a tensor, flat."""
    start, end = tensors(data)[name]
    n_dims, length = struct.unpack_from("<2i", data, start)
    return np.frombuffer(data[start + 12 + 4 * n_dims + length : end], "<f4")


def with_weights(data: bytes, name: str, values: np.ndarray) -> bytes:
    """Return the model with other values in a tensor."""
    _, end = tensors(data)[name]
    raw = values.astype("<f4").tobytes()
    return data[: end - len(raw)] + raw + data[end:]
