"""Models of transformers and CTranslate2 become the model of whisper.cpp that they were made from, bit by bit."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from models.test_whisper_conversion import ctranslate2, ggml_tensors

from cyllama import models
from cyllama.cli import main
from cyllama.errors import ModelLoadError
from cyllama.models.converters.whisper_folder import _byte_of_character
from cyllama.whisper import convert

Weights = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def original() -> bytes:
    return models.get("tiny.en").read_bytes()


@pytest.fixture(scope="module")
def split(original: bytes) -> tuple[list[bytes], Weights]:
    """Return the words and the tensors of the model."""
    n_mels, bins = struct.unpack_from("<2i", original, 48)
    position = 56 + 4 * n_mels * bins
    (count,) = struct.unpack_from("<i", original, position)
    position += 4
    words = []
    for _ in range(count):
        (size,) = struct.unpack_from("<I", original, position)
        words.append(original[position + 4 : position + 4 + size])
        position += 4 + size
    return words, ggml_tensors(original[position:])


def vocabulary(words: list[bytes]) -> dict[str, int]:
    characters = {byte: character for character, byte in _byte_of_character().items()}
    found = {"".join(characters[byte] for byte in word): i for i, word in enumerate(words)}
    return found | {"<|startoftranscript|>": len(found)}


HF_NAMES = {
    ".blocks.": ".layers.", "cross_attn_ln": "encoder_attn_layer_norm", "attn_ln": "self_attn_layer_norm",
    "mlp_ln": "final_layer_norm", "mlp.0": "fc1", "mlp.2": "fc2", "cross_attn.": "encoder_attn.",
    ".attn.": ".self_attn.", "query": "q_proj", "key": "k_proj", "value": "v_proj", "attn.out": "attn.out_proj",
    "ln_post": "layer_norm", "decoder.ln.": "decoder.layer_norm.", "token_embedding": "embed_tokens",
    "positional_embedding": "embed_positions.weight",
}  # fmt: skip


def hf_name(name: str) -> str:
    for old, new in HF_NAMES.items():
        name = name.replace(old, new)
    return f"model.{name}"


def safetensors(tensors: Weights) -> bytes:
    header, parts, position = {}, [], 0
    for name, array in tensors.items():
        array = array.reshape(-1) if name.endswith("conv1.bias") or name.endswith("conv2.bias") else array
        raw = array.tobytes()
        kind = {"float16": "F16", "float32": "F32"}[array.dtype.name]
        entry = {"dtype": kind, "shape": array.shape, "data_offsets": [position, position + len(raw)]}
        header[hf_name(name)] = entry
        parts.append(raw)
        position += len(raw)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(parts)


def ct2_weights(tensors: Weights) -> Weights:
    """Return the weights under CTranslate2's names."""
    found: Weights = {}
    for name, array in tensors.items():
        name = name.replace(".blocks.", "/layer_").replace("encoder.", "encoder/").replace("decoder.", "decoder/")
        name = name.replace("token_embedding.weight", "embeddings/weight").replace("ln_post.", "layer_norm.")
        name = name.replace("positional_embedding", "position_encodings/encodings").replace(
            "decoder/ln.", "decoder/layer_norm."
        )
        for old, new in ((".cross_attn_ln.", "/attention/layer_norm."), (".attn_ln.", "/self_attention/layer_norm."),
                         (".mlp_ln.", "/ffn/layer_norm."), (".mlp.0.", "/ffn/linear_0/"), (".mlp.2.", "/ffn/linear_1/"),
                         (".cross_attn.", "/attention/"), (".attn.", "/self_attention/"), ("conv1.", "conv1/"),
                         ("conv2.", "conv2/")):  # fmt: skip
            name = name.replace(old, new)
        if "layer_norm." in name:
            name = name.replace("layer_norm.weight", "layer_norm/gamma").replace("layer_norm.bias", "layer_norm/beta")
        found[name] = array.reshape(-1) if "/conv" in name and name.endswith("bias") else array
    joins = {}
    for name in [name for name in found if name.endswith("attention/query.weight")]:
        place = name.removesuffix("query.weight")
        q, k, v, out = (found.pop(f"{place}{part}.weight") for part in ("query", "key", "value", "out"))
        qb, vb, ob = (found.pop(f"{place}{part}.bias") for part in ("query", "value", "out"))
        kb = np.zeros_like(vb)
        if "self_attention" in place:
            parts = [((q, k, v), (qb, kb, vb)), ((out,), (ob,))]
        else:
            parts = [((q,), (qb,)), ((k, v), (kb, vb)), ((out,), (ob,))]
        for i, (matrices, biases) in enumerate(parts):
            joins[f"{place}linear_{i}/weight"] = np.concatenate(matrices)
            joins[f"{place}linear_{i}/bias"] = np.concatenate(biases)
    return found | joins


def test_converts_safetensors(split: tuple[list[bytes], Weights], original: bytes, tmp_path: Path) -> None:
    words, tensors = split
    (tmp_path / "model.safetensors").write_bytes(safetensors(tensors))
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary(words)))
    assert main(["whisper", "convert", str(tmp_path), str(tmp_path / "tiny.bin")]) == 0
    check_same((tmp_path / "tiny.bin").read_bytes(), original)


def test_converts_ctranslate2(split: tuple[list[bytes], Weights], original: bytes, tmp_path: Path) -> None:
    words, tensors = split
    (tmp_path / "model.bin").write_bytes(ctranslate2(ct2_weights(tensors)))
    (tmp_path / "vocabulary.json").write_text(json.dumps(list(vocabulary(words))))
    check_same(convert(tmp_path, tmp_path / "tiny.ggml").read_bytes(), original)


def check_same(found: bytes, original: bytes) -> None:
    """Compare all bytes, except the mel filters, whose last bit may differ."""
    n_mels, bins = struct.unpack_from("<2i", original, 48)
    end = 56 + 4 * n_mels * bins
    filters = [np.frombuffer(data, "<f4", n_mels * bins, 56) for data in (found, original)]
    np.testing.assert_allclose(*filters, atol=1e-7)
    assert found[:56] == original[:56] and found[end:] == original[end:]


def test_rejects_other_folders(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="neither"):
        convert(tmp_path, tmp_path / "out.bin")
    (tmp_path / "model.safetensors").write_bytes(b"no header")
    with pytest.raises(ModelLoadError, match="damaged"):
        convert(tmp_path, tmp_path / "out.bin")
    with pytest.raises(NotADirectoryError):
        convert(tmp_path / "model.safetensors", tmp_path / "out.bin")
    assert not (tmp_path / "out.bin").exists()
