"""Speculative decoding."""

from __future__ import annotations

from typing import Any

import pytest

from cyllama.errors import ClosedError, DecodeError, EngineError, InUseError
from cyllama.llama import (
    CommonParams,
    CommonSampler,
    LlamaBatch,
    LlamaContext,
    LlamaContextParams,
    LlamaModel,
    Speculative,
    speculative_types,
)


def params(**fields: Any) -> CommonParams:
    """``params(sampling__temp=0.5)`` sets ``params.sampling.temp``."""
    made = CommonParams()
    for name, value in fields.items():
        made.set_path(name.replace("__", "."), value)
    return made


REPEATED = list(range(100, 120)) * 5


@pytest.mark.parametrize("kind", [kind for kind in speculative_types() if kind.startswith("ngram")])
def test_ngram_drafts(tiny_ctx: LlamaContext, kind: str) -> None:
    drafter = Speculative(tiny_ctx, [kind])
    drafter.begin(REPEATED[:-1])
    draft = drafter.draft(REPEATED[:-1], REPEATED[-1])
    expected = (REPEATED * 2)[: len(draft)]
    assert draft == expected and draft
    drafter.accept(len(draft))
    assert len(drafter.draft(REPEATED[:-1], REPEATED[-1], n_max=2)) <= 2
    for tokens in ([], [5]):
        assert drafter.draft(tokens, 7) == []
    assert len(drafter.draft(REPEATED[:-1], REPEATED[-1])) > 0, "it still drafts after a shorter text"
    drafter.begin(REPEATED)
    drafter.draft(REPEATED[:-1], REPEATED[-1])


def speculate(target: LlamaContext, draft: LlamaContext, prompt: list[int], n: int) -> tuple[list[int], int]:
    """Return the greedy text of `n` tokens, and the number of accepted drafted tokens."""
    options = params(sampling__temp=0.0, speculative__draft__p_min=0.0)
    drafter = Speculative(target, ["draft-simple"], options, draft)
    sampler = CommonSampler(target.model, options)
    first = LlamaBatch.from_tokens(prompt[:-1])
    target.decode(first)
    drafter.process(first)
    drafter.begin(prompt[:-1])
    done, last, accepted = list(prompt[:-1]), prompt[-1], 0
    while len(done) < len(prompt) + n:
        draft_tokens = drafter.draft(done, last, n_max=4)
        draft.memory.seq_rm(0, len(done), -1)
        batch = LlamaBatch.from_tokens([last, *draft_tokens], pos0=len(done), logits_all=True)
        target.decode(batch)
        drafter.process(batch)
        ids = sampler.sample_and_accept_n(target, list(range(batch.n_tokens)), draft_tokens)
        drafter.accept(len(ids) - 1)
        accepted += len(ids) - 1
        done += [last, *ids[:-1]]
        last = ids[-1]
        for ctx in (target, draft):
            ctx.memory.seq_rm(0, len(done), -1)
    drafter.close()
    return done[len(prompt) : len(prompt) + n], accepted


def test_draft_model(smol_model: LlamaModel) -> None:
    options = LlamaContextParams(n_ctx=256)
    prompt = smol_model.vocab.tokenize("The capital of France is")
    with LlamaContext(smol_model, options) as ctx, CommonSampler(smol_model, params(sampling__temp=0.0)) as sampler:
        plain: list[int] = []
        batch = LlamaBatch.from_tokens(prompt)
        for i in range(24):
            ctx.decode(batch)
            plain.append(sampler.sample(ctx, -1))
            sampler.accept(plain[-1])
            batch = LlamaBatch.from_tokens([plain[-1]], pos0=len(prompt) + i)
    with LlamaContext(smol_model, options) as target, LlamaContext(smol_model, options) as draft:
        text, accepted = speculate(target, draft, prompt, 24)
    assert text == plain
    assert accepted > 12, "a model that drafts for itself is nearly always right"


def test_draft_context_stays_open(tiny_model: LlamaModel, smol_model: LlamaModel) -> None:
    options = LlamaContextParams(n_ctx=256)
    target, draft = LlamaContext(tiny_model, options), LlamaContext(tiny_model, options)
    drafter = Speculative(target, ["draft-simple"], draft=draft)
    for ctx in (target, draft):
        with pytest.raises(InUseError):
            ctx.close()
    with pytest.raises(ValueError):
        drafter.process(LlamaBatch())
    for i in range(4):
        drafter.process(LlamaBatch.from_tokens(range(64), pos0=64 * i))
    with pytest.raises(DecodeError):
        drafter.process(LlamaBatch.from_tokens([5], pos0=256))
    drafter.close()
    draft.close()
    with LlamaContext(smol_model, options) as other, pytest.raises(EngineError):
        Speculative(target, ["draft-simple"], draft=other)
    with pytest.raises(ValueError):
        Speculative(target, ["draft-simple"], draft=target)


def test_rejects_invalid_drafters(tiny_ctx: LlamaContext) -> None:
    for kinds in ([], ["none"], ["nope"], ["draft-simple"]):
        with pytest.raises(ValueError):
            Speculative(tiny_ctx, kinds)
    drafter = Speculative(tiny_ctx)
    for call in (lambda: drafter.draft([1], -1), lambda: drafter.draft([1], 32000), lambda: drafter.draft([1], 5, 2),
                 lambda: drafter.begin([1], -1), lambda: drafter.accept(1, 99)):  # fmt: skip
        with pytest.raises(IndexError):
            call()
    with pytest.raises(ValueError):
        drafter.accept(-1)
    drafter.close()
    with pytest.raises(ClosedError):
        drafter.draft([1], 5)
