"""Convert a folder with a Whisper model of transformers (safetensors) or CTranslate2 to the format of whisper.cpp."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from cyllama.errors import DownloadError
from cyllama.models.converters.whisper import GGML_MAGIC, read_ctranslate2, write_ggml

__all__ = ["convert_folder"]

Array = npt.NDArray[Any]
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
HEAD_SIZE = 64  # of attention, in all Whisper models
F16 = 1  # GGML_FTYPE_MOSTLY_F16
N_WORDS = 50257  # tokens in a file of whisper.cpp, which has the others itself
LINEAR = {"fc1": "ffn/linear_0", "fc2": "ffn/linear_1"}
NORMS = {
    "self_attn_layer_norm": "self_attention/layer_norm",
    "encoder_attn_layer_norm": "attention/layer_norm",
    "final_layer_norm": "ffn/layer_norm",
}


def convert_folder(folder: Path, mel_filters: Callable[[int], Array], out: BinaryIO) -> None:
    """Write the model of a folder as a model of whisper.cpp, with 16-bit floats.

    Parameters
    ----------
    folder : path
        ``model.bin`` of CTranslate2 or ``*.safetensors`` of transformers, and the vocabulary: ``tokenizer.json``,
        ``vocab.json``, ``vocabulary.json`` or ``vocabulary.txt``.
    mel_filters : callable
        Returns the filters for a number of mel bands, shape (bands, 201).
    out : binary file

    Raises
    ------
    DownloadError
        A file is missing, damaged, or of another model.
    """
    if (folder / "model.bin").is_file():
        weights: Mapping[str, Array] = _dequantized(read_ctranslate2((folder / "model.bin").read_bytes()))
    elif files := sorted(folder.glob("*.safetensors")):
        tensors = {name: array for file in files for name, array in _read_safetensors(file)}
        weights = dict(_as_ctranslate2({name.removeprefix("model."): array for name, array in tensors.items()}))
    else:
        raise DownloadError(f"{folder} has neither model.bin of CTranslate2 nor *.safetensors")
    words = _vocabulary(folder)
    write_ggml(weights, _head(weights, words, mel_filters), {}, out)


def _head(weights: Mapping[str, Array], words: list[bytes], mel_filters: Callable[[int], Array]) -> bytes:
    """Return the sizes, the mel filters and the vocabulary as whisper.cpp's files begin."""

    def shape(name: str) -> tuple[int, ...]:
        if name not in weights:
            raise DownloadError(f"the model has no weight {name}")
        return weights[name].shape

    def layers(side: str) -> int:
        return len(
            {name.split("/")[1] for name in weights if name.startswith(f"{side}/layer_") and name.count("/") > 2}
        )

    n_state, n_mels, _ = shape("encoder/conv1/weight")
    n_vocab, n_text_state = shape("decoder/embeddings/weight")
    n_audio_ctx, n_text_ctx = (shape(f"{side}/position_encodings/encodings")[0] for side in ("encoder", "decoder"))
    sizes = (
        n_vocab, n_audio_ctx, n_state, n_state // HEAD_SIZE, layers("encoder"),
        n_text_ctx, n_text_state, n_text_state // HEAD_SIZE, layers("decoder"), n_mels, F16,
    )  # fmt: skip
    filters = mel_filters(n_mels)
    parts = [struct.pack("<I11i", GGML_MAGIC, *sizes), struct.pack("<2i", *filters.shape), filters.tobytes()]
    parts.append(struct.pack("<i", len(words)))
    return b"".join([*parts, *(struct.pack("<I", len(word)) + word for word in words)])


def _vocabulary(folder: Path) -> list[bytes]:
    """Return the bytes of the first tokens."""
    try:
        if (path := folder / "tokenizer.json").is_file():
            found = json.loads(path.read_text("utf-8"))["model"]["vocab"]
        elif (path := folder / "vocab.json").is_file() or (path := folder / "vocabulary.json").is_file():
            found = json.loads(path.read_text("utf-8"))
        elif (path := folder / "vocabulary.txt").is_file():
            found = path.read_text("utf-8").split("\n")
        else:
            raise DownloadError(f"{folder} has no tokenizer.json, vocab.json, vocabulary.json or vocabulary.txt")
        if isinstance(found, list):
            found = {word: number for number, word in enumerate(found)}
        table = _byte_of_character()
        count = min(len(found), N_WORDS)
        words = {number: word for word, number in found.items() if number < count}
        return [bytes(table[character] for character in words[number]) for number in range(count)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DownloadError(f"the vocabulary {path} is damaged: {error!r}") from None


def _byte_of_character() -> dict[str, int]:
    """Return the bytes that the characters of a byte-level vocabulary stand for, as in GPT-2."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


def _dequantized(weights: Mapping[str, Array]) -> dict[str, Array]:
    """Return weights of CTranslate2 as floats: 8-bit rows are divided by their scale."""
    found = {}
    for name, array in weights.items():
        scale = weights.get(f"{name}_scale")
        found[name] = array if scale is None else array.astype(np.float32) / scale.astype(np.float32).reshape(-1, 1)
    return found


def _read_safetensors(path: Path) -> Iterator[tuple[str, Array]]:
    data = np.memmap(path, np.uint8, "r")
    try:
        (size,) = struct.unpack("<Q", data[:8].tobytes())
        entries = json.loads(data[8 : 8 + size].tobytes())
        for name, entry in entries.items():
            if name == "__metadata__":
                continue
            start, end = (8 + size + offset for offset in entry["data_offsets"])
            raw = data[start:end]
            if entry["dtype"] == "BF16":  # the upper half of a 32-bit float
                array: Array = (raw.view("<u2").astype("<u4") << 16).view("<f4")
            else:
                array = raw.view(DTYPES[entry["dtype"]])
            yield name, array.reshape(entry["shape"])
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise DownloadError(f"{path} is damaged or has another type of weights: {error!r}") from None


def _as_ctranslate2(tensors: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
    """Yield the weights of transformers under the names of CTranslate2, which joins the matrices of attention."""

    def single(name: str) -> Array:
        try:
            return tensors[name]
        except KeyError:
            raise DownloadError(f"the model has no weight {name}") from None

    def joined(target: str, names: tuple[str, ...]) -> Iterator[tuple[str, Array]]:
        matrices = [single(f"{name}.weight") for name in names]
        yield f"{target}/weight", np.concatenate(matrices)
        biases = [
            tensors.get(f"{name}.bias", np.zeros(len(m), m.dtype)) for name, m in zip(names, matrices, strict=True)
        ]
        yield f"{target}/bias", np.concatenate(biases)

    def norm(target: str, name: str) -> Iterator[tuple[str, Array]]:
        yield f"{target}/gamma", single(f"{name}.weight")
        yield f"{target}/beta", single(f"{name}.bias")

    for conv in ("conv1", "conv2"):
        yield f"encoder/{conv}/weight", single(f"encoder.{conv}.weight")
        yield f"encoder/{conv}/bias", single(f"encoder.{conv}.bias")
    yield "decoder/embeddings/weight", single("decoder.embed_tokens.weight")
    for side in ("encoder", "decoder"):
        yield f"{side}/position_encodings/encodings", single(f"{side}.embed_positions.weight")
        yield from norm(f"{side}/layer_norm", f"{side}.layer_norm")
        prefix = f"{side}.layers."
        for i in sorted({int(name[len(prefix) :].split(".")[0]) for name in tensors if name.startswith(prefix)}):
            source, target = f"{prefix}{i}", f"{side}/layer_{i}"
            own, cross = f"{source}.self_attn", f"{source}.encoder_attn"
            yield from joined(f"{target}/self_attention/linear_0", tuple(f"{own}.{part}_proj" for part in "qkv"))
            yield from joined(f"{target}/self_attention/linear_1", (f"{own}.out_proj",))
            if side == "decoder":
                yield from joined(f"{target}/attention/linear_0", (f"{cross}.q_proj",))
                yield from joined(f"{target}/attention/linear_1", (f"{cross}.k_proj", f"{cross}.v_proj"))
                yield from joined(f"{target}/attention/linear_2", (f"{cross}.out_proj",))
            for name, place in LINEAR.items():
                yield from joined(f"{target}/{place}", (f"{source}.{name}",))
            for name, place in NORMS.items():
                if side == "decoder" or not name.startswith("encoder_attn"):
                    yield from norm(f"{target}/{place}", f"{source}.{name}")
