"""States of a context that come from a file or from another process."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from cyllama.errors import EngineError
from cyllama.llama import LlamaBatch, LlamaContext, LlamaContextParams, LlamaModel
from fuzz.target import Target, documented
from fuzz.tiny_model import temporary_path, tiny_model_path

__all__ = ["TARGETS"]

TOKENS = [1, 260, 261, 262]
WHOLE, SEQUENCE, FILE, SEQUENCE_FILE = range(4)


def _context() -> LlamaContext:
    return LlamaContext(LlamaModel(tiny_model_path()), LlamaContextParams(n_ctx=64, n_batch=32, n_seq_max=2))


def seeds() -> Iterator[bytes]:
    """Yield the states of a context, each after a byte that tells its form."""
    context = _context()
    context.decode(LlamaBatch.from_tokens(TOKENS))
    state = context.state
    yield bytes([WHOLE]) + state.get_data()
    yield bytes([SEQUENCE]) + state.seq_get_data(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state"
        state.save_file(path, TOKENS)
        yield bytes([FILE]) + path.read_bytes()
        state.seq_save_file(path, 0, TOKENS)
        yield bytes([SEQUENCE_FILE]) + path.read_bytes()


def prepare() -> Callable[[bytes], None]:
    """Return a function that restores a state, and decodes with the context afterwards."""
    context = _context()
    state = context.state
    path = temporary_path("state")

    def restore(data: bytes) -> None:
        form, data = data[0] % 4 if data else WHOLE, data[1:]
        with documented(EngineError):
            if form == WHOLE:
                state.set_data(data)
            elif form == SEQUENCE:
                state.seq_set_data(data, 1)
            else:
                path.write_bytes(data)
                state.load_file(path) if form == FILE else state.seq_load_file(path, 1)
        context.memory.clear()
        context.decode(LlamaBatch.from_tokens(TOKENS))

    return restore


TARGETS = {"state": Target(prepare, seeds, max_length=1 << 14)}
