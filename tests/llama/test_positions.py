"""Position limits of models with learned positions."""

from __future__ import annotations

import pytest

from cyllama import models
from cyllama.llama import LlamaBatch, LlamaBatchExt, LlamaContext, LlamaContextParams, LlamaModel


@pytest.fixture(scope="module")
def bert() -> LlamaModel:
    return LlamaModel(models.get("minilm-l6"))


def test_rejects_position_beyond_the_position_table(bert: LlamaModel) -> None:
    params = LlamaContextParams(n_ctx=1024, n_batch=1024, n_ubatch=1024, embeddings=True)
    with LlamaContext(bert, params) as ctx:
        with pytest.raises(ValueError, match="at position 512, expected 0 to 511"):
            ctx.encode(LlamaBatch.from_tokens([101] * 600))
        ctx.encode(LlamaBatch.from_tokens([101] * 512))
        assert ctx.get_embeddings_seq().shape == (bert.n_embd,)
        with LlamaBatchExt(ctx) as batch:
            index = batch.add_token(101)
            with pytest.raises(ValueError, match="pos is 512, expected 0 to 511"):
                batch.set_pos(index, 512)


def test_rotary_positions_are_unlimited() -> None:
    with LlamaModel(models.get("tiny-random-llama")) as model, LlamaContext(model, LlamaContextParams(n_ctx=64)) as ctx:
        ctx.decode(LlamaBatch.from_tokens([1, 2, 3], pos0=model.n_ctx_train + 5))
