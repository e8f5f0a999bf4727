"""Model files of llama.cpp and whisper.cpp."""

from __future__ import annotations

import io
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from cyllama.errors import EngineError
from cyllama.llama import GGUFContext, LlamaModel, LlamaModelParams
from cyllama.whisper import ParakeetContext, WhisperContext, WhisperVad
from fuzz.target import Target, documented
from fuzz.tiny_model import temporary_path, tiny_model

__all__ = ["TARGETS"]

MANY = 1 << 20  # numbers or tensors that are read
WHISPER_MAGIC = 0x67676D6C


def gguf_seeds() -> Iterator[bytes]:
    """Yield files with metadata of each type and with tensors."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.gguf"
        for alignment in (32, 64):
            context = GGUFContext.empty(alignment)
            for kind in ("u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64", "bool"):
                context.set(f"one.{kind}", 1, kind) if kind[0] in "ui" else context.set(f"one.{kind}", kind == "bool")
                context.set(f"many.{kind}", np.array([0, 1]).astype("?" if kind == "bool" else _dtype(kind)))
            context.set("text", "text")
            context.set("texts", ["a", "bc"])
            context.write(path)
            yield path.read_bytes()
            context.add_tensor("a", np.arange(64, dtype=np.float32).reshape(2, 32))
            context.add_tensor("b", np.zeros((1, 18), np.uint8), "Q4_0")
            context.write(path)
            yield path.read_bytes()
    yield b"GGUF" + struct.pack("<IQQ", 2, 0, 0)


def _dtype(kind: str) -> str:
    return f"{kind[0]}{int(kind[1:]) // 8}"


def read_gguf(data: bytes) -> None:
    """Read everything in a file, and write it again."""
    with documented(EngineError), GGUFContext.from_bytes(data) as context:
        for key in context:
            assert key in context
            context[key], context.type_of(key)
        for info in context.tensors():
            if info.size < MANY:
                context.tensor_data(info.name)
        assert context.n_tensors == len(context.tensors())
        context.meta_data()
    with documented(EngineError):
        GGUFContext.from_fileobj(io.BytesIO(data)).close()


def llama_seeds() -> Iterator[bytes]:
    """Yield a whole model and its beginnings."""
    data = tiny_model()
    yield data
    yield data[: len(data) // 2]
    with GGUFContext.from_bytes(data) as context:
        yield data[: context.data_offset]


def load_llama() -> Callable[[bytes], None]:
    """Return a function that loads a model's vocabulary, and the whole model."""
    path = temporary_path("model.gguf")

    def load(data: bytes) -> None:
        path.write_bytes(data)
        for vocab_only in (True, False):
            with documented(EngineError), LlamaModel(path, LlamaModelParams(vocab_only=vocab_only)) as model:
                vocab = model.vocab
                tokens = vocab.tokenize("hello 1\n", parse_special=True)
                vocab.detokenize(tokens, unparse_special=True)
                model.chat_template()

    return load


def whisper_seeds() -> Iterator[bytes]:
    """Yield a vocabulary without weights, one with a tensor, and the header of a model that detects speech."""
    words = [b"a", b" ", b"bc"]
    head = struct.pack("<I11i", WHISPER_MAGIC, 51864, 64, 32, 1, 1, 64, 32, 1, 1, 1, 1)
    head += struct.pack("<2i", 1, 201) + bytes(4 * 201)
    head += struct.pack("<i", len(words)) + b"".join(struct.pack("<I", len(word)) + word for word in words)
    yield head
    name = b"decoder.ln.weight"
    yield head + struct.pack("<4i", 1, len(name), 0, 32) + name + bytes(4 * 32)
    vad = struct.pack("<Ii", WHISPER_MAGIC, 6) + b"silero" + struct.pack("<6i", 5, 1, 2, 512, 64, 4)
    for sizes in ((129, 128), (128, 64), (64, 64), (64, 128)):
        vad += struct.pack("<3i", *sizes, 3)
    name = b"_model.decoder.decoder.2.bias"
    yield vad + struct.pack("<4i", 128, 128, 128, 1) + struct.pack("<4i", 1, len(name), 0, 1) + name + bytes(4)
    # sizes of a Parakeet model, which has another order
    yield struct.pack("<I14i", WHISPER_MAGIC, 3, 64, 32, 1, 1, 80, 32, 1, 1, 1, 1, 1, 1, 1) + head[48:]


def load_whisper(data: bytes) -> None:
    """Load a model as each kind of model of the engine."""
    with documented(EngineError), WhisperContext.from_bytes(data) as context:
        for token in (*context.tokenize("a bc"), context.token_beg, context.n_vocab - 1):
            context.token_to_bytes(token)
    for kind in (WhisperVad, ParakeetContext):
        with documented(EngineError):
            kind.from_bytes(data).close()


TARGETS = {
    "gguf": Target(lambda: read_gguf, gguf_seeds),
    "llama-model": Target(load_llama, llama_seeds, max_length=1 << 16),
    "whisper-model": Target(lambda: load_whisper, whisper_seeds),
}
