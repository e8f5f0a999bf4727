"""The KV cache and its state; control vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cyllama.errors import EngineError, UnsupportedError
from cyllama.llama import LlamaBatch, LlamaContext, LlamaContextParams, LlamaModel

TOKENS = [1, 20, 300, 4000, 5000, 60]


def test_memory(tiny_ctx: LlamaContext) -> None:
    memory = tiny_ctx.memory
    tiny_ctx.decode(LlamaBatch.from_tokens(TOKENS))
    assert (memory.seq_pos_min(0), memory.seq_pos_max(0)) == (0, 5)
    assert memory.seq_pos_max(1) == -1
    memory.seq_cp(0, 1)
    assert memory.seq_pos_max(1) == 5
    assert memory.seq_rm(0, 3, -1)
    assert memory.seq_pos_max(0) == 2
    assert memory.can_shift()
    memory.seq_add(1, 2, -1, 10)
    assert memory.seq_pos_max(1) == 15
    memory.seq_div(1, 0, -1, 2)
    assert memory.seq_pos_max(1) == 7
    memory.seq_keep(1)
    assert memory.seq_pos_max(0) == -1
    memory.clear()
    assert memory.seq_pos_max(1) == -1
    with pytest.raises(IndexError, match="seq_id is 2, expected 0 to 1"):
        memory.seq_cp(0, 2)
    with pytest.raises(IndexError, match="seq_id is -2"):
        memory.seq_rm(-2)
    with pytest.raises(ValueError, match="divisor is 0"):
        memory.seq_div(0, 0, -1, 0)


def test_rejects_partial_copy_between_separate_buffers(tiny_model: LlamaModel) -> None:
    with LlamaContext(tiny_model, LlamaContextParams(n_ctx=512, n_seq_max=2, kv_unified=False)) as ctx:
        ctx.decode(LlamaBatch.from_tokens(TOKENS))
        with pytest.raises(UnsupportedError, match="only whole sequences"):
            ctx.memory.seq_cp(0, 1, 1, 3)
        ctx.memory.seq_cp(0, 1)
        assert ctx.memory.seq_pos_max(1) == 5


def test_removed_tokens_can_be_decoded_again(tiny_ctx: LlamaContext) -> None:
    tiny_ctx.decode(LlamaBatch.from_tokens(TOKENS))
    expected = tiny_ctx.get_logits_ith(-1)
    tiny_ctx.memory.seq_rm(0, 3)
    tiny_ctx.decode(LlamaBatch.from_tokens(TOKENS[3:], pos0=3))
    np.testing.assert_allclose(tiny_ctx.get_logits_ith(-1), expected, rtol=1e-3, atol=1e-3)


def next_logits(ctx: LlamaContext) -> np.ndarray:
    ctx.decode(LlamaBatch.from_tokens([77], pos0=len(TOKENS)))
    return ctx.get_logits_ith(-1)


def test_state_as_bytes_and_files(tiny_ctx: LlamaContext, tmp_path: Path) -> None:
    tiny_ctx.decode(LlamaBatch.from_tokens(TOKENS))
    state = tiny_ctx.state
    data, path = state.get_data(), tmp_path / "state.bin"
    state.save_file(path, TOKENS)
    sequence, seq_path = state.seq_get_data(0), tmp_path / "sequence.bin"
    assert len(sequence) == state.seq_size(0)
    state.seq_save_file(seq_path, 0, TOKENS)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["sequence.bin", "state.bin"]
    expected = next_logits(tiny_ctx)
    for restore in (
        lambda: state.set_data(data) == len(data),
        lambda: state.load_file(path) == TOKENS,
        lambda: state.seq_set_data(sequence, 0) == len(sequence),
        lambda: state.seq_load_file(seq_path, 0) == TOKENS,
        lambda: state.set_data(memoryview(bytearray(data))),
    ):
        tiny_ctx.memory.clear()
        assert restore()
        assert tiny_ctx.memory.seq_pos_max(0) == 5
        np.testing.assert_allclose(next_logits(tiny_ctx), expected, rtol=1e-3, atol=1e-3)


def test_rejects_damaged_states(tiny_ctx: LlamaContext, tmp_path: Path) -> None:
    tiny_ctx.decode(LlamaBatch.from_tokens(TOKENS))
    state = tiny_ctx.state
    data = state.get_data()
    random = np.random.default_rng(0)
    for _ in range(50):
        damaged = bytearray(data)
        for at in random.integers(0, len(data), 20):
            damaged[at] ^= 0xFF
        bad = [bytes(damaged), data[: random.integers(1, len(data))], bytes(random.integers(0, 256, 200, np.uint8))]
        for candidate in bad:
            try:
                state.set_data(candidate)  # damage in the tensors themselves cannot be seen
            except EngineError:
                assert tiny_ctx.memory.seq_pos_max(0) == -1
    with pytest.raises(EngineError, match="empty"):
        state.set_data(b"")
    path = tmp_path / "state.bin"
    state.save_file(path, TOKENS)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(EngineError):
        state.load_file(path)
    path.write_bytes(b"\xff" * 100)
    with pytest.raises(EngineError, match="not a state file"):
        state.load_file(path)
    with pytest.raises(FileNotFoundError):
        state.load_file(tmp_path / "none")
    tiny_ctx.memory.clear()
    tiny_ctx.decode(LlamaBatch.from_tokens(TOKENS))


def test_rejects_state_of_another_model(tiny_ctx: LlamaContext, smol_model: LlamaModel) -> None:
    with LlamaContext(smol_model, LlamaContextParams(n_ctx=256)) as other:
        other.decode(LlamaBatch.from_tokens(TOKENS))
        with pytest.raises(EngineError, match="not of this model, or damaged"):
            tiny_ctx.state.set_data(other.state.get_data())


def test_control_vector(tiny_ctx: LlamaContext, tiny_model: LlamaModel) -> None:
    tiny_ctx.decode(LlamaBatch.from_tokens(TOKENS))
    plain = tiny_ctx.get_logits_ith(-1)
    tiny_ctx.set_adapter_cvec(np.full((tiny_model.n_layer - 1, tiny_model.n_embd), 5.0, np.float32))
    tiny_ctx.memory.clear()
    tiny_ctx.decode(LlamaBatch.from_tokens(TOKENS))
    assert np.abs(tiny_ctx.get_logits_ith(-1) - plain).max() > 1e-3
    tiny_ctx.set_adapter_cvec(None)
    tiny_ctx.memory.clear()
    tiny_ctx.decode(LlamaBatch.from_tokens(TOKENS))
    np.testing.assert_allclose(tiny_ctx.get_logits_ith(-1), plain, rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="expected \\(layers, "):
        tiny_ctx.set_adapter_cvec(np.zeros((1, 3), np.float32))
