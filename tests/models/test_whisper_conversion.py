"""Conversion of Whisper from CTranslate2's format, with the real model and a small one."""

from __future__ import annotations

import io
import re
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from data.sounds import JFK

from cyllama import models
from cyllama.errors import DownloadError
from cyllama.models._download import sha256_of
from cyllama.models.converters.whisper import read_ctranslate2, read_tiktoken, write_ggml

TEXT = "And so my fellow Americans ask not what your country can do for you, ask what you can do for your country."
WIDTH, VOCAB = 4, 7
SIZES = (VOCAB, 6, WIDTH, 2, 1, 5, WIDTH, 2, 1, 3, 1)  # one layer on each side
DTYPES = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}
Weights = dict[str, np.ndarray]


def small_weights() -> Weights:
    """Return the weights of a model with one encoder and one decoder layer."""
    random = np.random.default_rng(7)

    def matrix(*shape: int) -> np.ndarray:
        return random.normal(size=shape).astype(np.float16)

    found: Weights = {"encoder/num_heads": np.array(2, np.int16), "decoder/embeddings/weight": matrix(VOCAB, WIDTH)}

    def linear(name: str, rows: int, columns: int) -> None:
        found[f"{name}/weight"], found[f"{name}/bias"] = matrix(rows, columns), matrix(rows)

    def norm(name: str) -> None:
        found[f"{name}/gamma"], found[f"{name}/beta"] = matrix(WIDTH), matrix(WIDTH)

    for i in (1, 2):
        found[f"encoder/conv{i}/weight"], found[f"encoder/conv{i}/bias"] = matrix(WIDTH, 3, 3), matrix(WIDTH)
    for side, positions in (("encoder", 6), ("decoder", 5)):
        layer = f"{side}/layer_0"
        found[f"{side}/position_encodings/encodings"] = matrix(positions, WIDTH)
        norm(f"{side}/layer_norm")
        norm(f"{layer}/self_attention/layer_norm")
        norm(f"{layer}/ffn/layer_norm")
        linear(f"{layer}/self_attention/linear_0", 3 * WIDTH, WIDTH)
        linear(f"{layer}/self_attention/linear_1", WIDTH, WIDTH)
        linear(f"{layer}/ffn/linear_0", 4 * WIDTH, WIDTH)
        linear(f"{layer}/ffn/linear_1", WIDTH, 4 * WIDTH)
        found[f"{layer}/self_attention/linear_0/bias"][WIDTH : 2 * WIDTH] = 0
    norm("decoder/layer_0/attention/layer_norm")
    linear("decoder/layer_0/attention/linear_0", WIDTH, WIDTH)
    linear("decoder/layer_0/attention/linear_1", 2 * WIDTH, WIDTH)
    linear("decoder/layer_0/attention/linear_2", WIDTH, WIDTH)
    found["decoder/layer_0/attention/linear_1/bias"][:WIDTH] = 0
    return found


def ctranslate2(weights: Weights, version: int = 6, kind: str = "WhisperSpec") -> bytes:
    def name(text: str) -> bytes:
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    out = [struct.pack("<I", version), name(kind), struct.pack("<II", 3, len(weights))]
    for key, array in weights.items():
        out += [name(key), struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)]
        out += [struct.pack("<BI", DTYPES[array.dtype.name], array.nbytes), array.tobytes()]
    return b"".join(out)


VOCABULARY = {1: b"b\xc3"}  # a part of a character


def head(sizes: tuple[int, ...] = SIZES, words: tuple[bytes, ...] = (b"a", b"bc", b"")) -> bytes:
    filters = np.arange(6, dtype=np.float32).tobytes()
    out = [struct.pack("<I11i", 0x67676D6C, *sizes), struct.pack("<2i", 3, 2), filters, struct.pack("<i", len(words))]
    return b"".join([*out, *(struct.pack("<I", len(word)) + word for word in words)])


def ggml_tensors(data: bytes) -> Weights:
    """Read tensors as whisper.cpp does."""
    found, position = {}, 0
    while position < len(data):
        n_dims, length, kind = struct.unpack_from("<3i", data, position)
        shape = struct.unpack_from(f"<{n_dims}i", data, position + 12)[::-1]
        position += 12 + 4 * n_dims
        name = data[position : position + length].decode()
        dtype = np.dtype(np.float16 if kind else np.float32)
        count = int(np.prod(shape))
        found[name] = np.frombuffer(data, dtype, count, position + length).reshape(shape)
        position += length + count * dtype.itemsize
    return found


def converted(weights: Weights, start: bytes | None = None) -> bytes:
    out = io.BytesIO()
    write_ggml(weights, head() if start is None else start, VOCABULARY, out)
    return out.getvalue()


# --------------------------------------------------------------------------------------- real model


def test_converted_model_transcribes_jfk(bin_dir: Path) -> None:
    path = models.get("tiny.en")
    command = [bin_dir / "whisper-cli", "-m", path, "-f", JFK, "-t", "2", "-bs", "1", "-bo", "1", "-nt", "-np"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == TEXT


def test_converted_model_has_the_pinned_hash() -> None:
    path = models.get("whisper-tiny.en")
    assert path == models.path("tiny.en")
    assert sha256_of(path) == models.find("tiny.en").sha256


# -------------------------------------------------------------------------------------- small models


def test_reads_the_weights() -> None:
    weights = small_weights()
    found = read_ctranslate2(ctranslate2(weights))
    assert found.keys() == weights.keys()
    for name, array in weights.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


def test_writes_names_types_and_values() -> None:
    weights = small_weights()
    data = converted(weights, head() + b"tensors of the other model")
    assert data.startswith(head(words=(b"a", b"b\xc3", b"")))
    found = ggml_tensors(data[len(head()) :])
    assert len(found) == 4 + 3 + 2 * 2 + 15 + 24
    for name, array in found.items():
        is_matrix = name.endswith(".weight") and array.ndim > 1
        assert array.dtype == (np.float16 if is_matrix else np.float32), name
    fused = weights["decoder/layer_0/self_attention/linear_0/weight"]
    for part, rows in zip(("query", "key", "value"), np.split(fused, 3), strict=True):
        np.testing.assert_array_equal(found[f"decoder.blocks.0.attn.{part}.weight"], rows)
    across = weights["decoder/layer_0/attention/linear_1/weight"]
    np.testing.assert_array_equal(found["decoder.blocks.0.cross_attn.key.weight"], across[:WIDTH])
    np.testing.assert_array_equal(found["decoder.blocks.0.cross_attn.value.weight"], across[WIDTH:])
    assert not [name for name in found if name.endswith("key.bias")]
    assert found["encoder.conv1.bias"].shape == (WIDTH, 1)
    assert found["encoder.conv1.weight"].shape == (WIDTH, 3, 3)
    np.testing.assert_array_equal(found["decoder.ln.bias"], weights["decoder/layer_norm/beta"])


def test_reads_tiktoken_vocabularies() -> None:
    assert read_tiktoken(b"IQ== 0\nIg== 1\n= 7\n") == {0: b"!", 1: b'"', 7: b""}
    for damaged in (b"IQ==", b"IQ== x", b"IQ== 0 0", b"I 5"):
        with pytest.raises(DownloadError, match="vocabulary"):
            read_tiktoken(damaged)


def test_rejects_truncated_files() -> None:
    data = ctranslate2(small_weights())
    for size in range(0, len(data), 37):
        with pytest.raises(DownloadError, match=r"ends at byte|not a Whisper model"):
            read_ctranslate2(data[:size])
    start = head()
    for size in range(len(start)):
        with pytest.raises(DownloadError, match="ends at byte"):
            converted(small_weights(), start[:size])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (ctranslate2({}, version=5), "format 6: 5, 'WhisperSpec'"),
        (ctranslate2({}, kind="TransformerSpec"), "'TransformerSpec'"),
        (ctranslate2({"a": np.zeros(3, np.int8)}).replace(b"\1\3\0\0\0\1", b"\1\3\0\0\0\x63"), "unknown type 99"),
        (ctranslate2({"a": np.zeros(3, np.int8)}).replace(b"\1\3\0\0\0", b"\1\4\0\0\0", 1), "do not make the shape"),
    ],
    ids=["version", "kind", "type", "shape"],
)
def test_rejects_other_formats(data: bytes, message: str) -> None:
    with pytest.raises(DownloadError, match=re.escape(message)):
        read_ctranslate2(data)


def test_rejects_a_vocabulary_of_another_model() -> None:
    with pytest.raises(DownloadError, match="whisper.cpp"):
        converted(small_weights(), b"GGUF" + head()[4:])
    with pytest.raises(DownloadError, match=r"another size: embeddings \(7, 4\), expected \(9, 4\)"):
        converted(small_weights(), head((9, *SIZES[1:])))


def test_rejects_missing_and_unexpected_weights() -> None:
    weights = small_weights()
    del weights["encoder/layer_norm/gamma"]
    with pytest.raises(DownloadError, match="no weight encoder/layer_norm/gamma"):
        converted(weights)
    weights = small_weights()
    weights["decoder/layer_0/attention/linear_1/bias"][0] = 1
    with pytest.raises(DownloadError, match="decoder/layer_0/attention has a bias for its keys"):
        converted(weights)
