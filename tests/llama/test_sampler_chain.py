"""Sampler chains as objects, and samplers written in Python."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cyllama.errors import CancelledError, InUseError, UnsupportedError
from cyllama.llama import (
    LlamaBatch,
    LlamaContext,
    LlamaModel,
    LlamaSampler,
    LlamaSamplerChainParams,
    TokenDataArray,
)


def chain(*steps: Callable[[LlamaSampler], Any]) -> LlamaSampler:
    sampler = LlamaSampler()
    for step in steps:
        step(sampler)
    return sampler


@pytest.fixture
def decoded(tiny_ctx: LlamaContext) -> LlamaContext:
    tiny_ctx.decode(LlamaBatch.from_tokens([1, 5, 9], logits_all=True))
    return tiny_ctx


class Last:
    """Select the last candidate, and record the calls."""

    def __init__(self) -> None:
        self.accepted: list[int] = []
        self.resets = 0

    def apply(self, array: TokenDataArray) -> None:
        array.selected = len(array) - 1

    def accept(self, token: int) -> None:
        self.accepted.append(token)

    def reset(self) -> None:
        self.resets += 1

    def clone(self) -> Last:
        other = Last()
        other.accepted = list(self.accepted)
        return other


def test_python_sampler(decoded: LlamaContext) -> None:
    last = Last()
    sampler = chain(lambda s: s.add_custom(last))
    assert sampler.sample(decoded) == decoded.model.n_vocab - 1
    assert last.accepted == [decoded.model.n_vocab - 1]
    sampler.accept(5)
    sampler.reset()
    assert last.accepted[-1] == 5 and last.resets == 1
    copy = sampler.clone()
    copy.accept(6)
    assert last.accepted[-1] == 5


def test_python_sampler_changes_logits_and_filters(decoded: LlamaContext) -> None:
    class Odd:
        def apply(self, array: TokenDataArray) -> None:
            assert array.id.dtype == np.int32 and array.logit.dtype == np.float32
            array.keep(array.id % 2 == 1)
            array.logit[:] = -array.logit

    logits = decoded.get_logits_ith(-1)
    odd = np.arange(1, len(logits), 2)
    assert chain(lambda s: s.add_custom(Odd()), LlamaSampler.add_greedy).sample(decoded) == odd[logits[odd].argmin()]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, CancelledError])
@pytest.mark.parametrize("method", ["apply", "accept", "reset", "clone"])
def test_exception_of_python_sampler_is_raised(decoded: LlamaContext, method: str, error: type[BaseException]) -> None:
    def fail(self: Last, *arguments: object) -> None:
        raise error("from Python")

    sampler = chain(lambda s: s.add_custom(type("Bad", (Last,), {method: fail})()), LlamaSampler.add_greedy)
    calls = {"apply": lambda: sampler.sample(decoded), "accept": lambda: sampler.accept(3), "reset": sampler.reset,
             "clone": sampler.clone}  # fmt: skip
    with pytest.raises(error, match="from Python"):
        calls[method]()


@pytest.mark.parametrize(
    "apply",
    [
        lambda self, array: setattr(array, "selected", 10**6), lambda self, array: setattr(array, "id", array.id[:0]),
        lambda self, array: setattr(array, "logit", array.logit[:5]),
        lambda self, array: setattr(array, "id", np.zeros(10**6, np.int32)),
    ],
)  # fmt: skip
def test_rejects_invalid_array_of_python_sampler(decoded: LlamaContext, apply: Callable[..., None]) -> None:
    sampler = chain(lambda s: s.add_custom(type("Bad", (), {"apply": apply})()), LlamaSampler.add_greedy)
    with pytest.raises((ValueError, IndexError)):
        sampler.sample(decoded)


def test_chain_keeps_python_sampler_alive(decoded: LlamaContext) -> None:
    sampler = chain(lambda s: s.add_custom(Last()))
    copy = sampler.clone()
    sampler.close()
    assert copy.sample(decoded) == decoded.model.n_vocab - 1


# --------------------------------------------------------------------------------- the chain


def test_chain_get_and_remove(tiny_model: LlamaModel) -> None:
    sampler = chain(lambda s: s.add_top_k(5), lambda s: s.add_temp(0.5), LlamaSampler.add_greedy)
    assert sampler.name == "chain" and len(sampler) == 3
    assert [sampler.chain_get(i).lstrip("+?") for i in range(3)] == ["top-k", "temp", "greedy"]
    sampler.chain_remove(1)
    assert [name.lstrip("+?") for name in sampler.names] == ["top-k", "greedy"]
    for i in (2, -1):
        with pytest.raises(IndexError):
            sampler.chain_remove(i)
        with pytest.raises(IndexError):
            sampler.chain_get(i)


def test_copy_from_copy_to_and_clone_copy_the_random_state(decoded: LlamaContext) -> None:
    def draws(sampler: LlamaSampler) -> list[int]:
        return [sampler.sample(decoded) for _ in range(8)]

    expected, other = draws(chain(lambda s: s.add_dist(1))), draws(chain(lambda s: s.add_dist(2)))
    assert expected != other
    source, received, sent = (chain(lambda s, seed=seed: s.add_dist(seed)) for seed in (1, 2, 2))
    received.copy_from(source)
    source.copy_to(sent)
    clone = source.clone()
    assert [draws(sampler) for sampler in (received, sent, clone, source)] == [expected] * 4


def test_copy_from_rejects_another_chain() -> None:
    with pytest.raises(ValueError, match="differ"):
        chain(lambda s: s.add_dist(1)).copy_from(chain(LlamaSampler.add_greedy))
    with pytest.raises(UnsupportedError):
        chain(lambda s: s.add_custom(Last())).copy_from(chain(lambda s: s.add_custom(Last())))


def test_perf(decoded: LlamaContext) -> None:
    sampler = LlamaSampler(LlamaSamplerChainParams(no_perf=False))
    sampler.add_greedy()
    for _ in range(4):
        sampler.sample(decoded)
    assert sampler.perf()["n_sample"] >= 4 and sampler.perf()["sample"] >= 0
    sampler.print_perf()
    sampler.perf_reset()
    assert sampler.perf()["n_sample"] == 0


def test_concurrent_use_raises(decoded: LlamaContext) -> None:
    """A second thread gets InUseError while a sampler runs."""
    inside, leave, seen = threading.Event(), threading.Event(), []

    class Slow(Last):
        def apply(self, array: TokenDataArray) -> None:
            inside.set()
            leave.wait(10)
            array.selected = 0

    sampler = chain(lambda s: s.add_custom(Slow()))
    thread = threading.Thread(target=lambda: seen.append(sampler.sample(decoded)))
    thread.start()
    assert inside.wait(10)
    with pytest.raises(InUseError):
        sampler.sample(decoded)
    with pytest.raises(InUseError):
        sampler.close()
    leave.set()
    thread.join()
    assert seen == [0]
