"""Upstream's `common` library: parameters, text helpers, its sampler, schemas, drafting."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cyllama
from cyllama.errors import ClosedError, DecodeError, GrammarError, InUseError
from cyllama.llama import (
    CommonParams,
    CommonSampler,
    FlashAttnType,
    LlamaBatch,
    LlamaContext,
    LlamaContextParams,
    LlamaModel,
    LlamaModelParams,
    LoadMode,
    NumaStrategy,
    PoolingType,
    Speculative,
    TensorType,
    common_batch_add,
    common_batch_clear,
    common_context_params_to_llama,
    common_detokenize,
    common_model_params_to_llama,
    common_params_get_system_info,
    common_token_to_piece,
    common_tokenize,
    json_schema_to_grammar,
    string_process_escapes,
)

NAN, INF = float("nan"), float("inf")


def params(**fields: Any) -> CommonParams:
    """``params(sampling__temp=0.5)`` sets ``params.sampling.temp``."""
    made = CommonParams()
    for name, value in fields.items():
        made.set_path(name.replace("__", "."), value)
    return made


@pytest.fixture
def decoded(tiny_ctx: LlamaContext) -> LlamaContext:
    tiny_ctx.decode(LlamaBatch.from_tokens([1, 5, 9], logits_all=True))
    return tiny_ctx


# ---------------------------------------------------------------------------------- parameters


def test_defaults_equal_upstreams() -> None:
    p = CommonParams()
    assert (p.n_predict, p.n_ctx, p.n_batch, p.n_ubatch, p.n_parallel, p.n_keep) == (-1, 0, 2048, 512, 1, 0)
    assert (p.model, p.prompt, p.antiprompt, p.lora_adapters, p.control_vectors) == ("", "", [], [], [])
    assert (p.sampling.top_k, p.sampling.seed, p.sampling.n_prev) == (40, 2**32 - 1, 64)
    assert p.sampling.temp == pytest.approx(0.8) and p.sampling.top_p == pytest.approx(0.95)
    assert p.cpuparams.n_threads == -1 and p.cpuparams.mask == [] and p.cpuparams.poll == 50
    assert p.numa is NumaStrategy.DISABLED and p.flash_attn_type is FlashAttnType.AUTO
    assert p.cache_type_k is TensorType.F16 and p.pooling_type is PoolingType.UNSPECIFIED
    assert p.sampling.samplers[0] == "penalties" and p.sampling.dry_sequence_breakers == ["\n", ":", '"', "*"]
    assert p.speculative.draft.n_max == 3 and p.speculative.types == ["none"]
    assert p.warmup is True and p.ctx_shift is False and p.embedding is False


def test_every_field_can_be_set_to_itself() -> None:
    p = CommonParams()
    before = p.to_dict()
    assert len(before) > 120
    for name, value in before.items():
        p.set_path(name, value)
        owner: Any = p
        for part in name.split("."):
            owner = getattr(owner, part)
        assert owner == value
    assert p.to_dict() == before


def test_set_and_get() -> None:
    p = CommonParams(model="m.gguf", n_ctx=128)
    p.cpuparams.n_threads = 3
    p.cpuparams.mask = [0, 511]
    p.sampling.temp = 0
    p.sampling.samplers = ["top_k", "temperature"]
    p.sampling.logit_bias = {5: -INF, 6: 1}
    p.sampling.grammar = 'root ::= "a"'
    p.sampling.dry_sequence_breakers = ["é"]
    p.speculative.draft.n_max = 9
    p.speculative.types = ["ngram-simple", "ngram-mod"]
    p.antiprompt = ["User:", "ü"]
    p.tensor_split = [1, 2.5]
    p.kv_overrides = {"a": 1, "b": True, "c": 0.5, "d": "text"}
    p.load_mode = "mmap"
    p.cache_type_k = TensorType.Q8_0
    p.model = Path("/some/where.gguf")
    assert p.to_dict() | {
        "model": "/some/where.gguf", "n_ctx": 128, "cpuparams.n_threads": 3, "cpuparams.mask": [0, 511],
        "sampling.temp": 0.0, "sampling.samplers": ["top_k", "temperature"], "sampling.grammar": 'root ::= "a"',
        "sampling.logit_bias": {5: -INF, 6: 1.0}, "sampling.dry_sequence_breakers": ["é"],
        "speculative.draft.n_max": 9, "speculative.types": ["ngram-simple", "ngram-mod"],
        "antiprompt": ["User:", "ü"], "tensor_split": [1.0, 2.5], "load_mode": LoadMode.MMAP,
        "kv_overrides": {"a": 1, "b": True, "c": 0.5, "d": "text"}, "cache_type_k": TensorType.Q8_0,
    } == p.to_dict()  # fmt: skip
    assert CommonParams().n_ctx == 0, "objects do not share"
    p.cpuparams.mask = []
    p.kv_overrides = {}
    p.speculative.types = []
    assert (p.cpuparams.mask, p.kv_overrides, p.speculative.types) == ([], {}, ["none"])


@pytest.mark.parametrize(
    ("name", "near"), [("n_ctxx", "n_ctx"), ("sampling.tmp", "sampling.temp"), ("cpuparams.nthreads", "n_threads"),
                       ("speculative.draft.nmax", "n_max"), ("zzzzzz", "zzzzzz")]
)  # fmt: skip
def test_rejects_unknown_names(name: str, near: str) -> None:
    *owners, last = name.split(".")
    owner: Any = CommonParams()
    for part in owners:
        owner = getattr(owner, part)
    with pytest.raises(AttributeError, match=near):
        getattr(owner, last)
    with pytest.raises(AttributeError, match=near):
        setattr(owner, last, 1)
    with pytest.raises(AttributeError):
        CommonParams(**{last: 1})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_ctx", "1"), ("n_ctx", 1.5), ("n_ctx", True), ("n_ctx", None), ("n_ctx", 2**31), ("n_ctx", -(2**31) - 1),
        ("prompt", 5), ("prompt", b"x"), ("warmup", 1), ("sampling.temp", "x"), ("sampling.temp", NAN),
        ("sampling.temp", INF), ("sampling.temp", True), ("sampling.seed", -1), ("sampling.seed", 2**32),
        ("numa", "nope"), ("numa", 99), ("cache_type_k", "q99"), ("sampling.samplers", ["nope"]),
        ("sampling.grammar", 5), ("sampling.grammar", 'root ::= "a"{3,1}'), ("sampling.logit_bias", {5: NAN}),
        ("sampling.logit_bias", {-1: 1.0}), ("tensor_split", [1] * 129), ("tensor_split", [-1]), ("tensor_split", [NAN]),
        ("kv_overrides", {"": 1}), ("kv_overrides", {"x" * 128: 1}), ("kv_overrides", {"a": "x" * 128}),
        ("kv_overrides", {"a": None}), ("cpuparams.mask", [512]), ("cpuparams.mask", [-1]), ("cpuparams.mask", ["0"]),
        ("speculative.types", ["nope"]), ("lora_adapters", [("a", NAN)]), ("lora_adapters", [(5, 1.0)]),
        ("control_vectors", [("a", "1")]),
    ],
)  # fmt: skip
def test_rejects_invalid_values(name: str, value: Any) -> None:
    p = CommonParams()
    before = p.to_dict()
    with pytest.raises((TypeError, ValueError)):
        p.set_path(name, value)
    assert p.to_dict() == before


def test_conversion_to_model_and_context_params(tiny_path: Path) -> None:
    p = params(model=str(tiny_path), n_ctx=96, n_batch=64, n_parallel=2, kv_unified=True, cpuparams__n_threads=1,
               check_tensors=True, kv_overrides={"llama.context_length": 77}, embedding=True)  # fmt: skip
    model_params, context_params = common_model_params_to_llama(p), common_context_params_to_llama(p)
    assert isinstance(model_params, LlamaModelParams) and isinstance(context_params, LlamaContextParams)
    assert model_params.check_tensors is True and model_params.load_mtp is False
    assert (context_params.n_ctx, context_params.n_batch, context_params.n_seq_max) == (96, 64, 2)
    assert (context_params.n_threads, context_params.n_threads_batch) == (1, 1)
    assert common_context_params_to_llama(CommonParams()).n_threads is None
    with LlamaModel(p.model, model_params) as model, LlamaContext(model, context_params) as ctx:
        assert model.n_ctx_train == 77
        assert (ctx.n_batch(), ctx.n_seq_max(), ctx.n_threads()) == (64, 2, 1)


def test_draft_mtp_loads_the_mtp_layers() -> None:
    assert common_model_params_to_llama(params(speculative__types=["draft-mtp"])).load_mtp is True


def test_system_info() -> None:
    assert "n_threads = 3" in common_params_get_system_info(params(cpuparams__n_threads=3))


# --------------------------------------------------------------------------------- text helpers


def test_text_helpers(tiny_ctx: LlamaContext) -> None:
    model = tiny_ctx.model
    for owner in (tiny_ctx, model, model.vocab):
        tokens = common_tokenize(owner, "Hello world", True)
        assert tokens == [1, *common_tokenize(owner, "Hello world", False)]
        assert common_detokenize(owner, tokens) == "<s> Hello world"
        assert common_detokenize(owner, tokens, False).strip() == "Hello world"
        assert common_token_to_piece(owner, 1) == "<s>" and common_token_to_piece(owner, 1, False) == ""
        assert common_tokenize(owner, "</s>", False, True) == [2]
        with pytest.raises(IndexError):
            common_token_to_piece(owner, -1)
    with pytest.raises(TypeError):
        common_tokenize("text", "text", True)


def test_batch_helpers() -> None:
    batch = LlamaBatch(n_tokens=2, embd=0, n_seq_max=2)
    common_batch_add(batch, 5, 0, [0, 1], False)
    common_batch_add(batch, 6, 1, [0], True)
    assert batch.n_tokens == 2
    with pytest.raises(ValueError):
        common_batch_add(batch, 7, 2, [0], True)
    common_batch_clear(batch)
    assert batch.n_tokens == 0


# -------------------------------------------------------------------------------------- schemas


def test_json_schema_to_grammar(smol_model: LlamaModel) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1, "maximum": 9}}, "required": ["n"]}
    grammar = json_schema_to_grammar(schema)
    assert grammar == json_schema_to_grammar(json.dumps(schema)) and "root ::=" in grammar
    made = params(sampling__grammar=grammar, sampling__temp=0.0)
    with LlamaContext(smol_model, LlamaContextParams(n_ctx=256)) as ctx, CommonSampler(smol_model, made) as sampler:
        prompt = smol_model.vocab.tokenize('A number as JSON, such as {"n": 5}:')
        ctx.decode(LlamaBatch.from_tokens(prompt))
        tokens: list[int] = []
        while len(tokens) < 60:
            tokens.append(sampler.sample(ctx))
            sampler.accept(tokens[-1])
            if smol_model.token_is_eog(tokens[-1]):
                break
            ctx.decode(LlamaBatch.from_tokens([tokens[-1]], pos0=len(prompt) + len(tokens) - 1))
        assert 1 <= json.loads(smol_model.vocab.detokenize(tokens))["n"] <= 9


@pytest.mark.parametrize(
    "schema",
    [
        "", "{", "[1]", "5", '"x"', '{"const": NaN}', {"type": "nope"}, {"type": 5}, {"$ref": "#"}, {"$ref": "#/none"},
        {"$ref": "https://example.invalid/x"}, {"properties": 5, "type": "object"}, {"enum": []},
        {"type": "string", "pattern": "^((a$"}, {"x": object()}, {1, 2},
    ],
    ids=lambda schema: re.sub(" at 0x\\w+", "", repr(schema)),
)  # fmt: skip
def test_rejects_invalid_schemas(schema: Any) -> None:
    with pytest.raises(GrammarError):
        json_schema_to_grammar(schema)


def test_rejects_deeply_nested_schema() -> None:
    with pytest.raises(GrammarError, match="nested too deeply"):
        json_schema_to_grammar('{"items":' * 100_000 + "{}" + "}" * 100_000)


# -------------------------------------------------------------------------------------- sampler


def test_greedy(decoded: LlamaContext) -> None:
    sampler = CommonSampler(decoded.model, params(sampling__temp=0.0))
    assert (sampler.last, sampler.prev_str(decoded, 5)) == (None, "")
    assert [len(part) for part in sampler.candidates()] == [0, 0]
    best = int(decoded.get_logits_ith(-1).argmax())
    assert sampler.sample(decoded) == sampler.sample(decoded, 2) == best
    ids, probabilities = sampler.candidates()
    assert ids.dtype == np.int32 and probabilities.dtype == np.float32 and ids[0] == best
    assert (np.diff(probabilities) <= 0).all()
    sampler.accept(best)
    assert sampler.last == best
    assert sampler.prev_str(decoded, 5) == common_token_to_piece(decoded, best)
    sampler.reset()
    assert sampler.last is None
    assert "temp" in repr(sampler)


def test_seeds_and_clones(decoded: LlamaContext) -> None:
    def draws(sampler: CommonSampler) -> list[int]:
        return [sampler.sample(decoded) for _ in range(6)]

    made = params(sampling__seed=7, sampling__temp=2.0, sampling__top_k=0)
    first, second = CommonSampler(decoded.model, made), CommonSampler(decoded.model, made)
    assert first.seed == 7
    first.sample(decoded)
    clone = first.clone()
    first_draws = draws(first)
    first.close()
    assert [len(part) for part in clone.candidates()] == [0, 0], "the original's candidates are gone"
    assert draws(clone) == first_draws == [*draws(second)[1:], second.sample(decoded)]


@pytest.mark.parametrize("mirostat", [1, 2])
def test_mirostat(decoded: LlamaContext, mirostat: int) -> None:
    sampler = CommonSampler(decoded.model, params(sampling__mirostat=mirostat, sampling__seed=1))
    assert 0 <= sampler.sample(decoded) < 32000


@pytest.mark.parametrize("name", [*CommonParams().sampling.samplers, "infill", "adaptive_p"])
def test_each_sampler_alone(decoded: LlamaContext, name: str) -> None:
    names = ["top_k", name] if name == "infill" else [name]  # infill compares all candidates with each other
    sampler = CommonSampler(decoded.model, params(sampling__samplers=names, sampling__dry_multiplier=0.5))
    for _ in range(4):
        sampler.accept(sampler.sample(decoded))


@pytest.mark.parametrize(
    "fields",
    [
        {"sampling__mirostat": 3}, {"sampling__mirostat": -1}, {"sampling__n_prev": 2**31 - 1},
        {"sampling__penalty_last_n": 2**31 - 1}, {"sampling__dry_penalty_last_n": 2**31 - 1},
        {"sampling__penalty_repeat": 0.0}, {"sampling__penalty_repeat": -1.0},
    ],
)  # fmt: skip
def test_rejects_invalid_sampling_values(tiny_model: LlamaModel, fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        CommonSampler(tiny_model, params(**fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"sampling__min_keep": -1}, {"sampling__top_p": -1.0}, {"sampling__min_p": 2.0}, {"sampling__typ_p": -1.0},
        {"sampling__temp": -5.0}, {"sampling__dry_allowed_length": -5, "sampling__dry_multiplier": 1.0},
        {"sampling__xtc_probability": 1.0, "sampling__xtc_threshold": 0.0}, {"sampling__top_k": -(2**31)},
        {"sampling__dynatemp_range": 9.0, "sampling__dynatemp_exponent": -9.0}, {"sampling__n_prev": -1},
        {"sampling__top_n_sigma": 0.0}, {"sampling__samplers": []},
        {"sampling__logit_bias": {i: -INF for i in range(32000)}},
    ],
    ids=str,
)  # fmt: skip
def test_extreme_sampling_values(decoded: LlamaContext, fields: dict[str, Any]) -> None:
    sampler = CommonSampler(decoded.model, params(**fields))
    for token in (5, 6, 7, 5, 6):
        sampler.accept(token)
    assert 0 <= sampler.sample(decoded) < 32000


def test_rejects_logit_bias_of_unknown_token(tiny_model: LlamaModel) -> None:
    with pytest.raises(IndexError):
        CommonSampler(tiny_model, params(sampling__logit_bias={32000: 1.0}))


def test_grammar(decoded: LlamaContext) -> None:
    sampler = CommonSampler(decoded.model, params(sampling__grammar='root ::= "yes"'))
    token = sampler.sample(decoded)
    assert "yes".startswith(common_token_to_piece(decoded, token))
    with pytest.raises(GrammarError, match="does not follow"):
        sampler.accept(decoded.model.vocab.tokenize("no", add_special=False)[0])
    for bad in ('root ::= "yes', "root ::= root", 'start ::= "x"'):
        with pytest.raises(GrammarError):
            CommonSampler(decoded.model, params(sampling__grammar=bad))


def test_sample_and_accept(decoded: LlamaContext) -> None:
    best = [int(decoded.get_logits_ith(i).argmax()) for i in range(3)]
    greedy = params(sampling__temp=0.0)
    assert CommonSampler(decoded.model, greedy).sample_and_accept_n(decoded, [0, 1, 2], best[:2]) == best
    assert CommonSampler(decoded.model, greedy).sample_and_accept_n(decoded, [0, 1, 2], [best[0], 5]) == best[:2]
    assert CommonSampler(decoded.model, greedy).sample_and_accept_n(decoded, [2], []) == best[2:]
    sampler = CommonSampler(decoded.model, greedy)
    with pytest.raises(ValueError):
        sampler.sample_and_accept_n(decoded, [0], [5])
    with pytest.raises(IndexError):
        sampler.sample_and_accept_n(decoded, [0, 3], [5])


def test_common_sampler_rejects_invalid_calls(decoded: LlamaContext, smol_model: LlamaModel) -> None:
    sampler = CommonSampler(decoded.model, CommonParams())
    for i in (3, -4):
        with pytest.raises(IndexError):
            sampler.sample(decoded, i)
    for token in (-1, 32000):
        with pytest.raises(IndexError):
            sampler.accept(token)
    with pytest.raises(ValueError):
        CommonSampler(smol_model, CommonParams()).sample(decoded)
    with pytest.raises(TypeError):
        CommonSampler(decoded.model, None)
    with LlamaContext(decoded.model, LlamaContextParams(n_ctx=32)) as fresh, pytest.raises((DecodeError, IndexError)):
        sampler.sample(fresh)
    sampler.close()
    with pytest.raises(ClosedError):
        sampler.sample(decoded)


def test_sampler_keeps_the_model_open(tiny_path: Path) -> None:
    model = LlamaModel(tiny_path)
    sampler = CommonSampler(model, CommonParams())
    with pytest.raises(InUseError):
        model.close()
    sampler.close()
    model.close()


def test_writes_nothing_to_the_terminal(tiny_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with LlamaModel(tiny_path) as model, LlamaContext(model, LlamaContextParams(n_ctx=64)) as ctx:
        ctx.decode(LlamaBatch.from_tokens([1, 2]))
        with CommonSampler(model, CommonParams()) as sampler, Speculative(ctx) as drafter:
            sampler.accept(sampler.sample(ctx))
            drafter.draft([1, 2], 3)
    assert capfd.readouterr() == ("", "")


def test_flat_names() -> None:
    for name in ("CommonParams", "common_tokenize", "common_token_to_piece", "common_batch_add", "common_batch_clear",
                 "common_model_params_to_llama", "common_context_params_to_llama"):  # fmt: skip
        assert getattr(cyllama, name) is getattr(cyllama.llama, name)


def test_string_process_escapes() -> None:
    assert string_process_escapes(r"a\nb\t\"\x41 \q ö") == 'a\nb\t"A \\q ö'
    assert string_process_escapes("") == ""
    with pytest.raises(UnicodeEncodeError):
        string_process_escapes("\ud800")
