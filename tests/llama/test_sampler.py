"""Sampler chains: the effect of each sampler, invalid values, grammars."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cyllama.errors import ClosedError, DecodeError, GrammarError
from cyllama.llama import (
    GGUFContext,
    LlamaBatch,
    LlamaContext,
    LlamaContextParams,
    LlamaModel,
    LlamaModelParams,
    LlamaSampler,
    LlamaSamplerChainParams,
    TensorType,
    TokenDataArray,
    llama_sampler_chain_default_params,
)

NAN, INF = math.nan, math.inf
VOCABULARIES = Path(__file__).resolve().parents[2] / "thirdparty" / "llama.cpp" / "models"


def chain(*steps: Callable[[LlamaSampler], Any]) -> LlamaSampler:
    sampler = LlamaSampler()
    for step in steps:
        step(sampler)
    return sampler


def applied(step: Callable[[LlamaSampler], Any], logits: Any = (0.0, 1.0, 2.0, 3.0, 4.0)) -> TokenDataArray:
    array = TokenDataArray(np.arange(len(logits)), np.array(logits))
    chain(step).apply(array)
    return array


@pytest.fixture
def decoded(tiny_ctx: LlamaContext) -> LlamaContext:
    tiny_ctx.decode(LlamaBatch.from_tokens([1, 5, 9], logits_all=True))
    return tiny_ctx


# --------------------------------------------------------------------------------- effects


def test_default_params() -> None:
    params = llama_sampler_chain_default_params()
    assert isinstance(params, LlamaSamplerChainParams)
    assert len(LlamaSampler(params)) == 0
    with pytest.raises(TypeError):
        LlamaSampler(5)


def test_greedy(decoded: LlamaContext) -> None:
    sampler = chain(LlamaSampler.add_greedy)
    for i in range(3):
        assert sampler.sample(decoded, i) == int(decoded.get_logits_ith(i).argmax())
    assert sampler.sample(decoded) == sampler.sample(decoded, -1) == sampler.sample(decoded, 2)


def test_greedy_fast_path_equals_the_chain(decoded: LlamaContext) -> None:
    alone, longer = chain(LlamaSampler.add_greedy), chain(lambda s: s.add_top_k(0), LlamaSampler.add_greedy)
    for token in range(100):
        decoded.decode(LlamaBatch.from_tokens([token], pos0=3 + token))
        assert alone.sample(decoded) == longer.sample(decoded) == int(decoded.get_logits_ith().argmax())


@pytest.mark.parametrize("weight", [0.0, NAN])
def test_greedy_selects_the_first_of_equal_logits(tiny_path: Path, weight: float) -> None:
    source = GGUFContext.from_file(tiny_path)

    def weights(name: str, kind: TensorType, shape: tuple[int, ...]) -> np.ndarray:
        return np.full(shape, weight, np.float16 if kind == TensorType.F16 else np.float32)

    model = LlamaModel.from_user(source, weights)
    ctx = LlamaContext(model, LlamaContextParams(n_ctx=64))
    ctx.decode(LlamaBatch.from_tokens([1, 2]))
    assert len(set(map(str, ctx.get_logits_ith()))) == 1
    assert chain(LlamaSampler.add_greedy).sample(ctx) == 0
    assert chain(lambda s: s.add_top_k(0), LlamaSampler.add_greedy).sample(ctx) == 0


def test_top_k() -> None:
    assert applied(lambda s: s.add_top_k(2)).id.tolist() == [4, 3]
    assert len(applied(lambda s: s.add_top_k(0))) == 5


def test_top_p() -> None:
    p = np.exp(np.arange(5.0)) / np.exp(np.arange(5.0)).sum()
    kept = applied(lambda s: s.add_top_p(float(p[4] + p[3] / 2)))
    assert sorted(kept.id.tolist()) == [3, 4]
    assert len(applied(lambda s: s.add_top_p(0.0, 3))) == 3


def test_min_p() -> None:
    assert sorted(applied(lambda s: s.add_min_p(math.exp(-2.5))).id.tolist()) == [2, 3, 4]


def test_temp() -> None:
    assert applied(lambda s: s.add_temp(0.5)).logit.tolist() == [0, 2, 4, 6, 8]
    assert applied(lambda s: s.add_temp(0.0)).logit.tolist() == [-INF, -INF, -INF, -INF, 4]


def test_top_n_sigma() -> None:
    assert np.isfinite(applied(lambda s: s.add_top_n_sigma(1.0)).logit).tolist() == [False, False, False, True, True]


def test_xtc() -> None:
    """The engine moves the start of the array; freeing that address corrupted memory."""
    for _ in range(2000):
        array = applied(lambda s: s.add_xtc(1.0, 0.1, 1, 1))
    assert 4 not in array.id.tolist() and array.id.tolist()[0] == 3


def test_penalties() -> None:
    sampler = chain(lambda s: s.add_penalties(10, 8, 2.0, 0.5, 0.25))
    for token in (3, 3, 1):
        sampler.accept(token)
    array = TokenDataArray(np.arange(4), np.array([1.0, 4.0, 1.0, 4.0]))
    sampler.apply(array)
    assert array.logit.tolist() == [1, 4 / 2 - 0.5 - 0.25, 1, 4 / 2 - 2 * 0.5 - 0.25]
    sampler.reset()
    sampler.apply(array := TokenDataArray(np.arange(4), np.ones(4)))
    assert array.logit.tolist() == [1, 1, 1, 1]


def test_dry(tiny_model: LlamaModel) -> None:
    sampler = chain(lambda s: s.add_dry(tiny_model.vocab, 2.0, 1.75, 2, 32, []))
    for token in (100, 200, 300, 400, 100, 200, 300):
        sampler.accept(token)
    array = TokenDataArray([400, 500], [0.0, 0.0])
    sampler.apply(array)
    assert array.logit.tolist() == [-2.0 * 1.75, 0.0]


def test_logit_bias(decoded: LlamaContext) -> None:
    n_vocab = decoded.model.n_vocab
    best = int(decoded.get_logits_ith(-1).argmax())
    banned = chain(lambda s: s.add_logit_bias(n_vocab, {best: -INF}), LlamaSampler.add_greedy)
    assert banned.sample(decoded) != best
    forced = chain(lambda s: s.add_logit_bias(n_vocab, [(7, 1e6)]), LlamaSampler.add_greedy)
    assert forced.sample(decoded) == 7


def test_seeds(decoded: LlamaContext) -> None:
    def draws(seed: int | None) -> list[int]:
        sampler = chain(lambda s: s.add_dist(seed))
        return [sampler.sample(decoded) for _ in range(8)]

    assert draws(1) == draws(1) != draws(2)
    assert draws(2**32 - 2) == draws(2**32 - 2)
    assert draws(None) != draws(None)
    assert chain(lambda s: s.add_dist(42)).seed == 42
    assert chain(LlamaSampler.add_greedy).seed is None


SELECTORS = {
    "greedy": LlamaSampler.add_greedy,
    "dist": lambda s: s.add_dist(1),
    "mirostat": lambda s: s.add_mirostat(32000, 1),
    "mirostat-v2": lambda s: s.add_mirostat_v2(1),
    "adaptive-p": lambda s: s.add_adaptive_p(0.5, 0.9, 1),
}
FILTERS = {
    "top-k": lambda s: s.add_top_k(40), "top-p": lambda s: s.add_top_p(0.9), "min-p": lambda s: s.add_min_p(0.01),
    "typical": lambda s: s.add_typical(0.9), "temp": lambda s: s.add_temp(0.7),
    "temp-ext": lambda s: s.add_temp_ext(0.7, 0.3, 1.0), "xtc": lambda s: s.add_xtc(0.5, 0.1, 1, 1),
    "top-n-sigma": lambda s: s.add_top_n_sigma(1.0), "penalties": lambda s: s.add_penalties(32000, 64, 1.1),
    "logit-bias": lambda s: s.add_logit_bias(32000, {5: 1.0}),
}  # fmt: skip


@pytest.mark.parametrize("selector", SELECTORS)
@pytest.mark.parametrize("which", FILTERS)
def test_every_pair_of_samplers_samples(decoded: LlamaContext, which: str, selector: str) -> None:
    sampler = chain(FILTERS[which], SELECTORS[selector])
    assert [name.lstrip("+?") for name in sampler.names] == [which, selector]
    for _ in range(3):
        assert 0 <= sampler.sample(decoded) < 32000
    assert sampler.clone().names == sampler.names


@settings(max_examples=150, deadline=None)
@given(
    logits=st.lists(st.floats(width=32, allow_nan=True, allow_infinity=True), min_size=1, max_size=80),
    which=st.sampled_from(sorted(FILTERS | SELECTORS)),
)
def test_samplers_accept_any_logits(logits: list[float], which: str) -> None:
    if which != "mirostat" or len(logits) > 1:
        array = applied({**FILTERS, **SELECTORS}[which], logits)
        assert 1 <= len(array) <= len(logits) and -1 <= array.selected < len(array)


# ------------------------------------------------------------------------------------ invalid values


@pytest.mark.parametrize(
    "step",
    [
        lambda s: s.add_dist(-1), lambda s: s.add_dist(2**32), lambda s: s.add_top_k(2**31),
        lambda s: s.add_top_p(NAN), lambda s: s.add_top_p(1.5), lambda s: s.add_top_p(0.5, -1),
        lambda s: s.add_min_p(-0.1), lambda s: s.add_typical(INF), lambda s: s.add_temp(NAN), lambda s: s.add_temp(INF),
        lambda s: s.add_temp_ext(1, -1, 1), lambda s: s.add_xtc(2, 0.1), lambda s: s.add_top_n_sigma(NAN),
        lambda s: s.add_mirostat(0), lambda s: s.add_mirostat(10, 1, NAN), lambda s: s.add_mirostat(10, 1, 5, 0.1, 0),
        lambda s: s.add_mirostat_v2(1, -1), lambda s: s.add_adaptive_p(2), lambda s: s.add_adaptive_p(0.5, 1.0),
        lambda s: s.add_penalties(0, 64), lambda s: s.add_penalties(10, -1), lambda s: s.add_penalties(10, 64, 0.0),
        lambda s: s.add_penalties(10, 64, NAN), lambda s: s.add_penalties(10, 2**31 - 1),
        lambda s: s.add_logit_bias(10, {3: NAN}), lambda s: s.add_logit_bias(0, {}),
    ],
)  # fmt: skip
def test_rejects_values_out_of_range(step: Callable[[LlamaSampler], None]) -> None:
    sampler = LlamaSampler()
    with pytest.raises(ValueError):
        step(sampler)
    assert len(sampler) == 0


def test_rejects_wrong_types(tiny_model: LlamaModel) -> None:
    sampler = LlamaSampler()
    for step in (lambda: sampler.add_top_k(1.5), lambda: sampler.add_top_p("1"), lambda: sampler.add_dist("x"),
                 lambda: sampler.add_temp(None), lambda: sampler.add_infill(None), lambda: sampler.add_grammar(None, ""),
                 lambda: sampler.add_grammar(tiny_model.vocab, 5), lambda: sampler.add_custom(object())):  # fmt: skip
        with pytest.raises(TypeError):
            step()
    with pytest.raises(IndexError):
        sampler.add_logit_bias(10, {10: 1.0})


def test_rejects_chain_without_selecting_sampler(decoded: LlamaContext) -> None:
    for sampler in (LlamaSampler(), chain(lambda s: s.add_top_k(5))):
        with pytest.raises(ValueError, match="selects no token"):
            sampler.sample(decoded)


def test_rejects_output_out_of_range(decoded: LlamaContext) -> None:
    sampler = chain(LlamaSampler.add_greedy)
    for i in (3, -4, 2**31 - 1, -(2**31)):
        with pytest.raises(IndexError):
            sampler.sample(decoded, i)


def test_rejects_sampling_before_decode(tiny_ctx: LlamaContext) -> None:
    with pytest.raises((DecodeError, IndexError)):
        chain(LlamaSampler.add_greedy).sample(tiny_ctx)


def test_rejects_vocabulary_of_another_model(decoded: LlamaContext) -> None:
    with LlamaModel(VOCABULARIES / "ggml-vocab-llama-bpe.gguf", LlamaModelParams(vocab_only=True)) as other:
        sampler = chain(lambda s: s.add_grammar(other.vocab, 'root ::= "a"'), LlamaSampler.add_greedy)
        with pytest.raises(ValueError, match="another model"):
            sampler.sample(decoded)


def test_closed_sampler_raises(decoded: LlamaContext) -> None:
    sampler = chain(LlamaSampler.add_greedy)
    sampler.close()
    sampler.close()
    for use in (
        sampler.add_greedy,
        lambda: sampler.sample(decoded),
        sampler.reset,
        sampler.clone,
        lambda: len(sampler),
    ):
        with pytest.raises(ClosedError):
            use()
    assert "closed" in repr(sampler)


def test_array_shapes() -> None:
    with pytest.raises(ValueError):
        TokenDataArray([1, 2], [1.0])
    with pytest.raises(ValueError):
        chain(LlamaSampler.add_greedy).apply(TokenDataArray([], []))


# ----------------------------------------------------------------------------------- grammars


def test_output_follows_the_grammar(smol_model: LlamaModel) -> None:
    vocab = smol_model.vocab
    with LlamaContext(smol_model, LlamaContextParams(n_ctx=128)) as ctx:
        sampler = chain(lambda s: s.add_grammar(vocab, 'root ::= "yes" | "no, " [a-z]{3}'), LlamaSampler.add_greedy)
        ctx.decode(LlamaBatch.from_tokens(vocab.tokenize("Is water dry? Answer:")))
        text, end = "", len(vocab.tokenize("Is water dry? Answer:"))
        while not vocab.is_eog(token := sampler.sample(ctx)):
            text += vocab.token_to_piece(token)
            ctx.decode(LlamaBatch.from_tokens([token], pos0=end))
            end += 1
        assert text == "yes" or (text.startswith("no, ") and len(text) == 7)


@pytest.mark.parametrize(
    "grammar",
    [
        "", "  \n", "x", 'root ::= "a', "root ::= undefined", 'start ::= "a"', "root ::= root", 'root ::= "a" (',
        'root ::= "\\', "root ::= [a-", 'root ::= "a"{1000000}', 'root ::= "a"{,}', 'root ::= "a"\0', "é",
        "root ::= <nosuch>", "root ::= <[99999999999999]>", '%llguidance {}\nstart: "a"',
    ],
)  # fmt: skip
def test_rejects_invalid_grammars(tiny_model: LlamaModel, grammar: str) -> None:
    sampler = LlamaSampler()
    with pytest.raises(GrammarError):
        sampler.add_grammar(tiny_model.vocab, grammar)
    assert len(sampler) == 0


@pytest.mark.parametrize(
    "grammar",
    [
        'root ::= "a"{3,1}', 'root ::= "a"{ 3 , 1 }', 'root ::= [a-z]{2,0}', "root ::= " + "(" * 100_000 + '"a"' + ")" * 100_000,
        "root ::= r0\n" + "\n".join(f"r{i} ::= r{i + 1}" for i in range(100_000)) + '\nr100000 ::= "a"',
    ],
    ids=["empty repetition", "spaces", "class", "nested", "many rules"],
)  # fmt: skip
def test_rejects_grammars_unsafe_for_the_parser(tiny_model: LlamaModel, grammar: str) -> None:
    with pytest.raises(GrammarError):
        LlamaSampler().add_grammar(tiny_model.vocab, grammar)
    with pytest.raises(GrammarError):
        LlamaSampler().add_grammar_lazy_patterns(tiny_model.vocab, grammar, trigger_tokens=[1])


DOUBLED = "".join(f'r{i} ::= r{i + 1}? r{i + 1}? "x"\n' for i in range(64)) + 'r64 ::= "y"\n'


def test_rejects_grammars_with_exponential_branches(tiny_model: LlamaModel) -> None:
    """Each rule doubles the number of parse stacks, at the start or after a character."""
    with pytest.raises(GrammarError, match="more than 10000 ways"):
        LlamaSampler().add_grammar(tiny_model.vocab, "root ::= r0\n" + DOUBLED)
    sampler = chain(lambda s: s.add_grammar(tiny_model.vocab, 'root ::= "H" r0\n' + DOUBLED))
    with pytest.raises(GrammarError, match="more than 10000 ways"):
        sampler.accept(next(i for i in range(tiny_model.vocab.n_tokens) if tiny_model.vocab.token_to_piece(i) == "H"))


@pytest.mark.parametrize(
    "grammar", ['root ::= "{3,1}"', "root ::= [{3,1}]+", 'root ::= "a" # {3,1}', 'root ::= "\\"{3,1}"', 'root ::= "a"{1,3}',
                'root ::= "a"{2,}', 'root ::= "a"{0,0}', "root ::= " + "(" * 900 + '"a"' + ")" * 900]
)  # fmt: skip
def test_accepts_unusual_grammars(tiny_model: LlamaModel, grammar: str) -> None:
    assert len(chain(lambda s: s.add_grammar(tiny_model.vocab, grammar))) == 1


@settings(max_examples=300, deadline=None)
@given(
    grammar=st.text(st.sampled_from(list('root ::="a[]-^(){}*+?|\\,01#\n<>!.x')), max_size=40).map("root ::= ".__add__)
)
def test_random_grammars(tiny_model: LlamaModel, grammar: str) -> None:
    with contextlib.suppress(GrammarError):
        LlamaSampler().add_grammar(tiny_model.vocab, grammar)


def test_accept_rejects_token_outside_the_grammar(tiny_model: LlamaModel) -> None:
    vocab = tiny_model.vocab
    sampler = chain(lambda s: s.add_grammar(vocab, 'root ::= "yes"'), LlamaSampler.add_greedy)
    with pytest.raises(GrammarError, match="does not follow"):
        sampler.accept(vocab.tokenize("no", add_special=False)[0])


def test_grammar_root_name(tiny_model: LlamaModel) -> None:
    sampler = LlamaSampler()
    sampler.add_grammar(tiny_model.vocab, 'begin ::= "a"', root="begin")
    for root in ("", "other", "a\0b"):
        with pytest.raises(GrammarError):
            sampler.add_grammar(tiny_model.vocab, 'begin ::= "a"', root=root)
    assert len(sampler) == 1


def test_lazy_grammar(tiny_model: LlamaModel) -> None:
    vocab = tiny_model.vocab
    sampler = chain(lambda s: s.add_grammar_lazy_patterns(vocab, 'root ::= "yes"', trigger_tokens=[100]))
    array = TokenDataArray([100, 101], [0.0, 0.0])
    sampler.apply(array)
    assert array.logit.tolist() == [0.0, 0.0], "it does not hold before its trigger"
    with pytest.raises(IndexError):
        sampler.add_grammar_lazy_patterns(vocab, 'root ::= "yes"', trigger_tokens=[32000])
