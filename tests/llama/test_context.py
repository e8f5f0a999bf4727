"""Decoding, outputs, settings, the KV cache and its state."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from cyllama._native import ThreadPool
from cyllama.errors import (
    CancelledError,
    ContextFullError,
    DecodeError,
    EngineError,
    InUseError,
    OutOfMemoryError,
)
from cyllama.llama import (
    LlamaBatch,
    LlamaBatchExt,
    LlamaContext,
    LlamaContextParams,
    LlamaModel,
    LlamaSampler,
    PoolingType,
)

TOKENS = [1, 20, 300, 4000, 5000, 60]


def test_logits(tiny_ctx: LlamaContext, tiny_model: LlamaModel) -> None:
    tiny_ctx.decode(LlamaBatch.from_tokens(TOKENS, logits_all=True))
    logits = tiny_ctx.get_logits()
    assert logits.shape == (len(TOKENS), tiny_model.n_vocab) and logits.dtype == np.float32
    assert np.isfinite(logits).all()
    for i in range(len(TOKENS)):
        np.testing.assert_array_equal(tiny_ctx.get_logits_ith(i), logits[i])
    np.testing.assert_array_equal(tiny_ctx.get_logits_ith(-1), logits[-1])
    logits[:] = 0  # a copy: the engine's is untouched
    assert tiny_ctx.get_logits_ith(0).any()


def test_single_tokens_equal_one_batch(tiny_ctx: LlamaContext) -> None:
    tiny_ctx.decode(LlamaBatch.from_tokens(TOKENS))
    expected = tiny_ctx.get_logits_ith(-1)
    tiny_ctx.memory.clear()
    for i, token in enumerate(TOKENS):
        tiny_ctx.decode(LlamaBatch.from_tokens([token], pos0=i))
    np.testing.assert_allclose(tiny_ctx.get_logits_ith(-1), expected, rtol=1e-3, atol=1e-3)


def test_outputs_only_for_requested_tokens(tiny_ctx: LlamaContext) -> None:
    batch = LlamaBatch(n_tokens=3)
    for i, wanted in enumerate((True, False, True)):
        batch.add(TOKENS[i], i, [0], wanted)
    tiny_ctx.decode(batch)
    assert tiny_ctx.n_outputs == 2
    assert tiny_ctx.get_logits().shape[0] == 2
    np.testing.assert_array_equal(tiny_ctx.get_logits_ith(-2), tiny_ctx.get_logits_ith(0))
    with pytest.raises(IndexError, match="token 1 of the last batch has no output"):
        tiny_ctx.get_logits_ith(1)
    with pytest.raises(IndexError, match="output -3 does not exist"):
        tiny_ctx.get_logits_ith(-3)
    with pytest.raises(IndexError):
        tiny_ctx.get_logits_ith(3)


def test_embeddings(tiny_model: LlamaModel) -> None:
    params = LlamaContextParams(n_ctx=64, embeddings=True, pooling_type="none")
    with LlamaContext(tiny_model, params) as ctx:
        assert ctx.pooling_type is PoolingType.NONE
        ctx.decode(LlamaBatch.from_tokens(TOKENS, logits_all=True))
        rows = ctx.get_embeddings()
        assert rows.shape == (len(TOKENS), tiny_model.n_embd)
        np.testing.assert_array_equal(ctx.get_embeddings_ith(2), rows[2])
        with pytest.raises(DecodeError, match="no pooled embedding"):
            ctx.get_embeddings_seq(0)
    with LlamaContext(tiny_model, LlamaContextParams(n_ctx=64, embeddings=True, pooling_type="mean")) as ctx:
        ctx.decode(LlamaBatch.from_tokens(TOKENS))
        pooled = ctx.get_embeddings_seq(0)
        assert pooled.shape == (tiny_model.n_embd,)
        np.testing.assert_allclose(pooled, rows.mean(0), rtol=1e-2, atol=1e-3)
        with pytest.raises(DecodeError, match="pooling_type 'none'"):
            ctx.get_embeddings()


def test_embeddings_need_the_embeddings_option(tiny_ctx: LlamaContext) -> None:
    tiny_ctx.decode(LlamaBatch.from_tokens(TOKENS))
    with pytest.raises(DecodeError, match="embeddings=True"):
        tiny_ctx.get_embeddings()
    with pytest.raises(DecodeError, match="embeddings=True"):
        tiny_ctx.get_embeddings_ith(-1)
    tiny_ctx.set_embeddings(True)
    tiny_ctx.memory.clear()
    tiny_ctx.decode(LlamaBatch.from_tokens(TOKENS))
    assert tiny_ctx.get_embeddings_ith(-1).any()


def test_embeddings_as_input(tiny_ctx: LlamaContext, tiny_model: LlamaModel) -> None:
    rows = np.random.default_rng(1).normal(size=(4, tiny_model.n_embd))
    batch = LlamaBatch(n_tokens=4, embd=tiny_model.n_embd)
    batch.add_embeddings(rows[:, ::-1][:, ::-1])
    tiny_ctx.decode(batch)
    first = tiny_ctx.get_logits_ith(-1)
    ext = LlamaBatchExt(tiny_ctx)
    for i, row in enumerate(rows):
        assert ext.add_embd(row) == i
        ext.set_pos(i, i)
    ext.set_output(3)
    tiny_ctx.memory.clear()
    tiny_ctx.process(ext)
    np.testing.assert_allclose(tiny_ctx.get_logits_ith(3), first, rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="rows have width 3"):
        batch.clear()
        batch.add_embeddings(np.ones((1, 3)))


def test_extended_batch(tiny_ctx: LlamaContext) -> None:
    tiny_ctx.decode(LlamaBatch.from_tokens(TOKENS))
    expected = tiny_ctx.get_logits_ith(-1)
    tiny_ctx.memory.clear()
    with LlamaBatchExt(tiny_ctx) as ext:
        for i, token in enumerate(TOKENS):
            ext.add_token(token)
            ext.set_pos(i, i)
        ext.set_output(len(TOKENS) - 1)
        tiny_ctx.process(ext, "decode")
        np.testing.assert_allclose(tiny_ctx.get_logits_ith(-1), expected, rtol=1e-3, atol=1e-3)
        ext.clear()
        with pytest.raises(ValueError, match="empty"):
            tiny_ctx.process(ext)
        ext.add_token(1)
        with pytest.raises(ValueError, match="has no position"):
            tiny_ctx.process(ext)
        ext.add_seq(0, 1)
        with pytest.raises(IndexError, match="seq_id is 2"):
            ext.add_token(1, 2)
        with pytest.raises(IndexError, match="token is 99999999"):
            ext.add_token(99999999)
        with pytest.raises(IndexError, match="idx is 7"):
            ext.set_pos(7, 0)
        for _ in range(tiny_ctx.n_batch() - 1):
            ext.add_token(1)
        with pytest.raises(ValueError, match="the batch is full"):
            ext.add_token(1)


def test_settings(tiny_ctx: LlamaContext) -> None:
    assert tiny_ctx.n_ctx() == 256
    assert tiny_ctx.n_ctx_seq() == 256
    assert tiny_ctx.n_batch() == 64
    assert tiny_ctx.n_ubatch() == 64
    assert tiny_ctx.n_seq_max() == 2
    assert tiny_ctx.n_rs_seq() == 0
    tiny_ctx.set_n_threads(1, 2)
    assert (tiny_ctx.n_threads(), tiny_ctx.n_threads_batch()) == (1, 2)
    tiny_ctx.set_n_threads(3)
    assert (tiny_ctx.n_threads(), tiny_ctx.n_threads_batch()) == (3, 3)
    assert tiny_ctx.causal_attn
    tiny_ctx.set_causal_attn(False)
    assert not tiny_ctx.causal_attn
    tiny_ctx.synchronize()


def test_threadpool(tiny_ctx: LlamaContext) -> None:
    pool, batch_pool = ThreadPool(2), ThreadPool(1, poll=50)
    tiny_ctx.decode(LlamaBatch.from_tokens(TOKENS))
    expected = tiny_ctx.get_logits_ith(-1)
    tiny_ctx.attach_threadpool(pool, batch_pool)
    tiny_ctx.memory.clear()
    tiny_ctx.decode(LlamaBatch.from_tokens(TOKENS))
    np.testing.assert_allclose(tiny_ctx.get_logits_ith(-1), expected, rtol=1e-3, atol=1e-3)
    with pytest.raises(InUseError):
        pool.close()
    tiny_ctx.detach_threadpool()
    pool.close()
    batch_pool.close()
    tiny_ctx.decode(LlamaBatch.from_tokens([1], pos0=len(TOKENS)))


def test_eval_callback(tiny_model: LlamaModel) -> None:
    seen: dict[str, np.ndarray] = {}

    def watch(name: str, op: str, shape: tuple[int, ...], values: np.ndarray | None) -> bool:
        if values is None:
            return name == "result_output"
        seen[name] = values
        return True

    with LlamaContext(tiny_model, LlamaContextParams(n_ctx=64, cb_eval=watch)) as ctx:
        ctx.decode(LlamaBatch.from_tokens(TOKENS))
        np.testing.assert_array_equal(seen["result_output"].reshape(-1), ctx.get_logits_ith(-1))


def test_exception_of_eval_callback_is_raised(tiny_model: LlamaModel) -> None:
    def fail(*_: object) -> bool:
        raise ZeroDivisionError("in the callback")

    ctx = LlamaContext(tiny_model, LlamaContextParams(n_ctx=64, cb_eval=fail))
    with pytest.raises(ZeroDivisionError, match="in the callback"):
        ctx.decode(LlamaBatch.from_tokens(TOKENS))


def test_perf(tiny_model: LlamaModel) -> None:
    with LlamaContext(tiny_model, LlamaContextParams(n_ctx=64, no_perf=False)) as ctx:
        ctx.decode(LlamaBatch.from_tokens(TOKENS))
        ctx.decode(LlamaBatch.from_tokens([1], pos0=len(TOKENS)))
        perf = ctx.perf()
        assert perf["n_prompt"] == len(TOKENS) and perf["n_generated"] == 1
        assert perf["prompt"] > 0
        ctx.perf_reset()
        assert ctx.perf()["prompt"] == 0


def test_backend_sampling(tiny_model: LlamaModel) -> None:
    """The CPU backend runs a greedy chain; the token is the largest logit of an ordinary context."""
    with LlamaContext(tiny_model, LlamaContextParams(n_ctx=64)) as plain:
        plain.decode(LlamaBatch.from_tokens(TOKENS))
        expected = plain.get_logits_ith(-1).argmax()
    chain = LlamaSampler()
    chain.add_greedy()
    with LlamaContext(tiny_model, LlamaContextParams(n_ctx=64, samplers={0: chain})) as ctx:
        assert ctx.backend_samplers == {0: chain}
        with pytest.raises(InUseError):
            chain.close()
        ctx.decode(LlamaBatch.from_tokens(TOKENS))
        assert ctx.get_sampled_token_ith(-1) == expected
        assert ctx.get_sampled_probs_ith(-1) is None or ctx.get_sampled_probs_ith(-1).ndim == 1
        assert ctx.get_sampled_logits_ith(-1) is None or ctx.get_sampled_logits_ith(-1).ndim == 1
        assert ctx.get_sampled_candidates_ith(-1) is None or ctx.get_sampled_candidates_ith(-1).dtype == np.int32
        ctx.set_sampler(0, None)
    chain.close()


# ------------------------------------------------------------------------------------------ bad input


def test_full_context_raises(tiny_model: LlamaModel) -> None:
    with LlamaContext(tiny_model, LlamaContextParams(n_ctx=256, n_batch=256)) as ctx:
        ctx.decode(LlamaBatch.from_tokens([1] * 200))
        with pytest.raises(ContextFullError, match="n_ctx is 256") as caught:
            ctx.decode(LlamaBatch.from_tokens([1] * 100, pos0=200))
        assert caught.value.code == 1
        assert ctx.memory.seq_pos_max(0) == 199
        ctx.decode(LlamaBatch.from_tokens([1] * 50, pos0=200))


def test_rejects_more_tokens_than_n_batch(tiny_ctx: LlamaContext) -> None:
    with pytest.raises(ValueError, match=r"the batch has 65 tokens, expected 64 at most \(n_batch"):
        tiny_ctx.decode(LlamaBatch.from_tokens([1] * 65))


def test_rejects_empty_batch(tiny_ctx: LlamaContext) -> None:
    with pytest.raises(ValueError, match="empty"):
        tiny_ctx.decode(LlamaBatch(n_tokens=4))
    with pytest.raises(ValueError, match="empty"):
        LlamaBatch.from_tokens([])


def test_rejects_ids_out_of_range(tiny_ctx: LlamaContext, tiny_model: LlamaModel) -> None:
    with pytest.raises(IndexError, match=f"token 1 of the batch is {tiny_model.n_vocab}, expected 0 to"):
        tiny_ctx.decode(LlamaBatch.from_tokens([1, tiny_model.n_vocab]))
    with pytest.raises(IndexError, match="token 0 of the batch is -5"):
        tiny_ctx.decode(LlamaBatch.from_tokens([-5]))
    with pytest.raises(IndexError, match=r"in sequence 2, expected 0 to 1"):
        tiny_ctx.decode(LlamaBatch.from_tokens([1], seq_id=2))
    with pytest.raises(IndexError, match="token is -1"):
        LlamaBatch(n_tokens=1).add(-1, 0)
    with pytest.raises(TypeError, match="dtype float64"):
        LlamaBatch.from_tokens([1.5])


def test_rejects_tokens_beyond_the_capacity() -> None:
    batch = LlamaBatch(n_tokens=2)
    batch.add(1, 0)
    batch.add(2, 1)
    with pytest.raises(ValueError, match="the batch is full: it has 2 of 2 tokens"):
        batch.add(3, 2)
    with pytest.raises(ValueError, match="seq_ids has 2 entries, expected 1 to 1"):
        batch.clear()
        batch.add(1, 0, [0, 1])
    for bad in (0, -1, 10**9):
        with pytest.raises(ValueError, match="n_tokens is"):
            LlamaBatch(n_tokens=bad)


def test_rejects_positions_out_of_order(tiny_ctx: LlamaContext) -> None:
    tiny_ctx.decode(LlamaBatch.from_tokens(TOKENS))
    with pytest.raises(DecodeError) as caught:
        tiny_ctx.decode(LlamaBatch.from_tokens([1], pos0=50))
    assert "inconsistent sequence positions" in str(caught.value)
    assert caught.value.code == -1
    tiny_ctx.decode(LlamaBatch.from_tokens([1], pos0=len(TOKENS)))


def test_rejects_outputs_before_decode(tiny_ctx: LlamaContext) -> None:
    for read in (tiny_ctx.get_logits, tiny_ctx.get_logits_ith, tiny_ctx.get_embeddings):
        with pytest.raises(DecodeError, match=r"call decode\(\) first"):
            read()


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"n_ctx": -1}, ValueError, "n_ctx is -1"),
        ({"n_ctx": 2**31}, ValueError, "n_ctx is 2147483648"),
        ({"n_ctx": 10**9}, OutOfMemoryError, "this machine has"),
        ({"n_ctx": 1.5}, TypeError, "n_ctx is 1.5"),
        ({"n_batch": 0}, ValueError, "n_batch is 0"),
        ({"n_ubatch": 0}, ValueError, "n_ubatch is 0"),
        ({"n_seq_max": 0}, ValueError, "n_seq_max is 0"),
        ({"n_seq_max": 10**6}, ValueError, "n_seq_max is 1000000"),
        ({"n_threads": 0}, ValueError, "n_threads is 0"),
        ({"type_v": 9999}, ValueError, "type_v is 9999"),
        ({"type_k": "q99"}, ValueError, "type_k is 'q99'"),
        ({"type_v": "q4_0", "flash_attn_type": "disabled"}, EngineError, "flash_attn"),
        ({"pooling_type": "avg"}, ValueError, "expected one of"),
        ({"ctx_type": "mtp"}, EngineError, "MTP"),
        ({"samplers": {0: "greedy"}}, TypeError, "LlamaSampler"),
        ({"cb_eval": 1}, TypeError, "cb_eval"),
    ],
)
def test_rejects_invalid_parameters(smol_model: LlamaModel, params: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        LlamaContext(smol_model, LlamaContextParams(**params))


def test_n_ctx_zero_is_the_training_context(tiny_model: LlamaModel) -> None:
    assert LlamaContext(tiny_model, LlamaContextParams(n_ctx=0)).n_ctx() == tiny_model.n_ctx_train


def test_engine_assertion_raises_and_invalidates_the_context(tiny_model: LlamaModel) -> None:
    """cb_eval changes the data of the graph, which triggers an assertion that the bindings cannot check."""
    ctx = LlamaContext(tiny_model, LlamaContextParams(n_ctx=64))
    ctx.set_causal_attn(True)
    from cyllama._native import _core

    with pytest.raises(EngineError, match="assertion of the engine failed") as caught:
        _core.fail_assertion()
    assert caught.value.aborted
    ctx.decode(LlamaBatch.from_tokens(TOKENS))


# -------------------------------------------------------------------------------------------- cancel


def test_cancel_during_a_prompt(smol_model: LlamaModel) -> None:
    with LlamaContext(smol_model, LlamaContextParams(n_ctx=8192, n_batch=8192)) as ctx:
        prompt = LlamaBatch.from_tokens([1] * 6000)
        for _ in range(3):
            cancel = threading.Event()
            timer = threading.Timer(0.3, cancel.set)
            timer.start()
            with pytest.raises(CancelledError):
                ctx.decode(prompt, cancel=cancel)
            timer.join()
            ctx.memory.clear()
            ctx.decode(LlamaBatch.from_tokens(TOKENS))
            assert np.isfinite(ctx.get_logits_ith(-1)).all()
            ctx.memory.clear()


def test_abort_callback(smol_model: LlamaModel) -> None:
    with LlamaContext(smol_model, LlamaContextParams(n_ctx=4096, n_batch=4096)) as ctx:
        ctx.set_abort_callback(lambda: True)
        with pytest.raises(CancelledError):
            ctx.decode(LlamaBatch.from_tokens([1] * 3000))
        ctx.set_abort_callback(None)
        ctx.memory.clear()
        ctx.decode(LlamaBatch.from_tokens(TOKENS))


def test_exception_of_cancel_is_raised(smol_model: LlamaModel) -> None:
    class Broken:
        calls = 0

        def is_set(self) -> bool:
            self.calls += 1
            if self.calls > 1:
                raise OSError("cannot tell")
            return False

    with LlamaContext(smol_model, LlamaContextParams(n_ctx=4096, n_batch=4096)) as ctx:
        with pytest.raises(OSError, match="cannot tell"):
            ctx.decode(LlamaBatch.from_tokens([1] * 3000), cancel=Broken())
        with pytest.raises(TypeError, match="expected an object with is_set"):
            ctx.decode(LlamaBatch.from_tokens([1]), cancel=True)


def test_closed_thread_pools_are_not_used(tiny_model: LlamaModel) -> None:
    """A pool may be closed once it is detached; the next computation uses another one."""
    with LlamaContext(tiny_model, LlamaContextParams(n_ctx=64)) as ctx:
        for _ in range(20):
            pool = ThreadPool(2)
            ctx.attach_threadpool(pool)
            ctx.memory.clear()
            ctx.decode(LlamaBatch.from_tokens([1, 2, 3]))
            ctx.detach_threadpool()
            pool.close()
            ctx.memory.clear()
            ctx.decode(LlamaBatch.from_tokens([1, 2, 3]))
