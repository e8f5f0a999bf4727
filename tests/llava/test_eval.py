"""Evaluating chunks in a LlamaContext: logits, positions, invalid arguments."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from llava.support import After, pixels

from cyllama.errors import CancelledError, ContextFullError, DecodeError, InUseError, UnsupportedError
from cyllama.llama import LlamaBatch, LlamaContext, LlamaContextParams, LlamaModel
from cyllama.llava import Bitmap, InputChunk, InputChunks, MtmdContext

PROMPT = "<|im_start|>user\n<__media__>What is this?<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def chunks(mtmd: MtmdContext) -> InputChunks:
    return mtmd.tokenize(PROMPT, [Bitmap.from_pixels(pixels())])


def by_hand(mtmd: MtmdContext, ctx: LlamaContext, chunks: InputChunks) -> int:
    """Evaluate chunks with LlamaContext.decode only."""
    pos = 0
    for chunk in chunks:
        if chunk.type.name == "TEXT":
            batch = LlamaBatch.from_tokens(chunk.tokens, pos)
        else:
            batch = LlamaBatch(n_tokens=chunk.n_tokens, embd=mtmd.n_embd)
            batch.add_embeddings(mtmd.encode(chunk), pos)
        ctx.decode(batch)
        pos += chunk.n_tokens
    return pos


def test_eval_chunks_equals_decode(mtmd: MtmdContext, ctx: LlamaContext, chunks: InputChunks) -> None:
    assert mtmd.eval_chunks(ctx, chunks) == chunks.n_pos
    assert ctx.n_outputs == 1
    logits = ctx.get_logits_ith(-1)
    ctx.memory.clear()
    assert by_hand(mtmd, ctx, chunks) == chunks.n_pos
    np.testing.assert_allclose(ctx.get_logits_ith(-1), logits, rtol=1e-4, atol=1e-4)
    ctx.memory.clear()
    pos = 0
    for i, chunk in enumerate(chunks):
        pos = mtmd.eval_chunk_single(ctx, chunk, pos, logits_last=i == 2)
    np.testing.assert_allclose(ctx.get_logits_ith(-1), logits, rtol=1e-4, atol=1e-4)


def test_result_is_similar_in_small_batches(mtmd: MtmdContext, ctx: LlamaContext, chunks: InputChunks) -> None:
    mtmd.eval_chunks(ctx, chunks)
    logits = ctx.get_logits_ith(-1)
    ctx.memory.clear()
    assert mtmd.eval_chunks(ctx, chunks, n_batch=7) == chunks.n_pos
    assert np.corrcoef(ctx.get_logits_ith(-1), logits)[0, 1] > 0.99  # other kernels round differently
    last = chunks[2].n_tokens % 7 or 7
    np.testing.assert_array_equal(ctx.get_logits_ith(last - 1), ctx.get_logits_ith(-1))
    with pytest.raises(IndexError):
        ctx.get_logits_ith(last)


def test_eval_without_logits(mtmd: MtmdContext, ctx: LlamaContext, chunks: InputChunks) -> None:
    mtmd.eval_chunks(ctx, chunks, logits_last=False)
    assert ctx.n_outputs == 0
    with pytest.raises(IndexError):
        ctx.get_logits_ith(-1)
    ctx.memory.clear()
    mtmd.eval_chunk_single(ctx, chunks[1])
    assert ctx.n_outputs == 0


def test_logits_depend_on_the_image(mtmd: MtmdContext, ctx: LlamaContext, chunks: InputChunks) -> None:
    mtmd.eval_chunks(ctx, chunks)
    logits = ctx.get_logits_ith(-1)
    ctx.memory.clear()
    mtmd.eval_chunks(ctx, mtmd.tokenize(PROMPT, [Bitmap.from_pixels(pixels("square", "blue"))]))
    assert not np.allclose(ctx.get_logits_ith(-1), logits, atol=0.05)


def test_positions_and_sequences(mtmd: MtmdContext, smol_model: LlamaModel, chunks: InputChunks) -> None:
    with LlamaContext(smol_model, LlamaContextParams(n_ctx=512, n_seq_max=2, kv_unified=True)) as ctx:
        assert mtmd.eval_chunks(ctx, chunks, n_past=0, seq_id=1) == chunks.n_pos
        assert ctx.memory.seq_pos_max(1) == chunks.n_pos - 1 and ctx.memory.seq_pos_max(0) == -1
        more = mtmd.tokenize("and now?", add_special=False)
        assert mtmd.eval_chunks(ctx, more, n_past=chunks.n_pos, seq_id=1) == chunks.n_pos + more.n_pos
        assert ctx.n_outputs == 1


def test_decodes_given_embeddings(mtmd: MtmdContext, ctx: LlamaContext, chunks: InputChunks) -> None:
    mtmd.eval_chunks(ctx, chunks)
    logits = ctx.get_logits_ith(-1)
    ctx.memory.clear()
    rows = mtmd.encode(chunks[1])
    pos = mtmd.eval_chunk_single(ctx, chunks[0])
    pos = mtmd.decode_image_chunk(ctx, InputChunk.load(chunks[1].save()), rows, pos)
    mtmd.eval_chunk_single(ctx, chunks[2], pos)
    np.testing.assert_allclose(ctx.get_logits_ith(-1), logits, rtol=1e-4, atol=1e-4)


def test_on_batch_gets_embeddings_and_positions(mtmd: MtmdContext, ctx: LlamaContext, chunks: InputChunks) -> None:
    seen: list[tuple[np.ndarray, np.ndarray, int]] = []
    rows = mtmd.encode(chunks[1])
    pos = mtmd.eval_chunk_single(ctx, chunks[0])
    mtmd.decode_image_chunk(ctx, chunks[1], rows, pos, n_batch=10, on_batch=lambda *batch: seen.append(batch))
    assert [part.shape for part, _, _ in seen] == [(10, 576), (6, 576)]
    np.testing.assert_array_equal(np.concatenate([part for part, _, _ in seen]), rows)
    first = chunks[0].n_pos
    np.testing.assert_array_equal(np.concatenate([p for _, p, _ in seen], axis=1), [np.arange(first, first + 16)])


def test_on_batch_stops_or_raises(mtmd: MtmdContext, ctx: LlamaContext, chunks: InputChunks) -> None:
    rows = mtmd.encode(chunks[1])
    calls = 0

    def stop(*batch: object) -> bool:
        nonlocal calls
        calls += 1
        return False

    assert mtmd.decode_image_chunk(ctx, chunks[1], rows, 0, n_batch=4, on_batch=stop) == 0
    assert calls == 1 and ctx.memory.seq_pos_max(0) == 3
    ctx.memory.clear()
    with pytest.raises(ZeroDivisionError):
        mtmd.decode_image_chunk(ctx, chunks[1], rows, 0, on_batch=lambda *batch: 1 / 0)
    with pytest.raises(TypeError, match="on_batch is 7"):
        mtmd.decode_image_chunk(ctx, chunks[1], rows, 0, on_batch=7)


def test_rejects_invalid_embeddings(mtmd: MtmdContext, ctx: LlamaContext, chunks: InputChunks) -> None:
    rows = mtmd.encode(chunks[1])
    for wrong in (rows[:-1], rows[:, :-1], rows.astype(np.float64), rows.ravel(), np.zeros((0, 576), np.float32)):
        with pytest.raises(ValueError, match=r"expected float32 \(16, 576\)"):
            mtmd.decode_image_chunk(ctx, chunks[1], wrong)
    with pytest.raises(ValueError, match="the chunk is text"):
        mtmd.decode_image_chunk(ctx, chunks[0], rows)
    assert mtmd.decode_image_chunk(ctx, chunks[1], rows[::1].copy(order="F")) == 16


def test_rejects_invalid_positions(
    mtmd: MtmdContext, ctx: LlamaContext, chunks: InputChunks, tiny_ctx: LlamaContext
) -> None:
    for arguments, kind, message in (
        ({"n_past": -1}, ValueError, "n_past is -1"),
        ({"n_past": "0"}, TypeError, "n_past is '0'"),
        ({"seq_id": 1}, IndexError, "seq_id is 1"),
        ({"n_batch": 0}, ValueError, "n_batch is 0"),
        ({"n_batch": 257}, ValueError, "n_batch is 257, expected 1 to 256"),
        ({"cancel": 7}, TypeError, "is_set"),
    ):
        with pytest.raises(kind, match=message):
            mtmd.eval_chunks(ctx, chunks, **arguments)
    with pytest.raises(ValueError, match="another model"):
        mtmd.eval_chunks(tiny_ctx, chunks)
    with pytest.raises(TypeError):
        mtmd.eval_chunks("ctx", chunks)
    with pytest.raises(TypeError):
        mtmd.eval_chunks(ctx, None)
    with pytest.raises(ValueError, match="chunks is empty"):
        mtmd.eval_chunks(ctx, InputChunks())
    with pytest.raises(DecodeError):  # a hole before it
        mtmd.eval_chunks(ctx, chunks, n_past=0)
        mtmd.eval_chunks(ctx, chunks, n_past=3)


def test_rejects_chunks_of_another_context(
    mtmd: MtmdContext, ctx: LlamaContext, mmproj_path: Path, smol_model: LlamaModel
) -> None:
    with MtmdContext(mmproj_path, smol_model) as other:
        foreign = other.tokenize("<__media__>", [Bitmap.from_pixels(pixels())])
        with pytest.raises(ValueError, match="another MtmdContext"):
            mtmd.eval_chunks(ctx, foreign)


def test_full_context_raises(mtmd: MtmdContext, smol_model: LlamaModel, chunks: InputChunks) -> None:
    with LlamaContext(smol_model, LlamaContextParams(n_ctx=64, n_batch=64)) as ctx:
        pos = 0
        with pytest.raises(ContextFullError):
            for _ in range(20):
                pos = mtmd.eval_chunks(ctx, chunks, pos)
        assert pos > 0
        ctx.memory.clear()
        assert mtmd.eval_chunks(ctx, chunks) == chunks.n_pos


def test_rejects_models_without_memory(mtmd: MtmdContext, chunks: InputChunks) -> None:
    import cyllama

    with LlamaModel(cyllama.models.get("minilm-l6")) as bert, LlamaContext(bert) as ctx:
        with pytest.raises((ValueError, UnsupportedError)):
            mtmd.eval_chunks(ctx, chunks)


def test_cancel_before_decoding(mtmd: MtmdContext, ctx: LlamaContext, chunks: InputChunks) -> None:
    with pytest.raises(CancelledError):
        mtmd.eval_chunks(ctx, chunks, cancel=After(0))
    ctx.set_abort_callback(lambda: True)
    with pytest.raises(CancelledError):
        mtmd.eval_chunks(ctx, chunks)
    ctx.set_abort_callback(None)
    ctx.memory.clear()
    assert mtmd.eval_chunks(ctx, chunks) == chunks.n_pos


def test_cancel_stops_decoding(mtmd: MtmdContext, smol_model: LlamaModel) -> None:
    long = mtmd.tokenize("word " * 3000)
    with LlamaContext(smol_model, LlamaContextParams(n_ctx=4096, n_batch=512)) as ctx:
        event = threading.Event()
        timer = threading.Timer(0.1, event.set)
        timer.start()
        with pytest.raises(CancelledError):
            mtmd.eval_chunks(ctx, long, cancel=event)
        timer.join()
        assert ctx.memory.seq_pos_max(0) < long.n_pos - 1


def test_both_handles_are_in_use(mtmd: MtmdContext, ctx: LlamaContext, chunks: InputChunks) -> None:
    rows = mtmd.encode(chunks[1])
    errors: list[str] = []

    def during(*batch: object) -> None:
        for use in (ctx.synchronize, ctx.close, lambda: mtmd.encode(chunks[1]), mtmd.close, chunks.close):
            try:
                use()
            except InUseError as error:
                errors.append(str(error))

    mtmd.decode_image_chunk(ctx, chunks[1], rows, on_batch=during)
    assert len(errors) == 5
