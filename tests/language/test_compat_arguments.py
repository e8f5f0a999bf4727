"""Each argument of llama-cpp-python changes something in `cyllama.compat`, is rejected, or is documented as idle."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from language.test_slots import write_adapter

from cyllama import compat, models
from cyllama.compat import Llama, LlamaGrammar, LlamaPromptLookupDecoding, LogitsProcessorList, StoppingCriteriaList
from cyllama.compat._arguments import LoadArguments
from cyllama.compat.llama_chat_format import MTMDChatHandler
from cyllama.errors import UnsupportedError

TINY = "tiny-random-llama"
# The arguments of llama-cpp-python 0.3: of the constructor, with another value than the default one.
LOAD: dict[str, Any] = {
    "n_gpu_layers": -1,
    "split_mode": 2,
    "main_gpu": 1,
    "tensor_split": [1.0, 2.0],
    "use_mmap": False,
    "use_mlock": True,
    "kv_overrides": {"a.b": 1},
    "n_ctx": 64,
    "n_batch": 32,
    "n_ubatch": 16,
    "n_threads": 3,
    "n_threads_batch": 3,
    "rope_scaling_type": 2,
    "pooling_type": 1,
    "attention_type": 1,
    "rope_freq_base": 5.0,
    "rope_freq_scale": 2.0,
    "yarn_ext_factor": 0.5,
    "yarn_attn_factor": 2.0,
    "yarn_beta_fast": 2.0,
    "yarn_beta_slow": 2.0,
    "yarn_orig_ctx": 64,
    "embedding": True,
    "offload_kqv": False,
    "flash_attn": True,
    "op_offload": False,
    "swa_full": True,
    "no_perf": True,
    "lora_path": "a.gguf",
    "numa": 2,
    "chat_handler": MTMDChatHandler(models.get(TINY), use_gpu=False),
    "draft_model": LlamaPromptLookupDecoding(),
    "type_k": 8,
    "type_v": 8,
    "spm_infill": True,
}
REJECTED: dict[str, Any] = {"tokenizer": object(), "lora_base": "base.gguf"}
IDLE = {"verbose"}  # named in the documentation of cyllama.compat
TESTED_HERE = {"model_path", "vocab_only", "seed", "logits_all", "last_n_tokens_size", "lora_scale", "chat_format"}
PROMPT = "1 2 3 4 5 6 7 8"


@pytest.fixture(scope="module")
def llama() -> Iterator[Llama]:
    with Llama(TINY, n_ctx=512, seed=1) as model:
        yield model


def converted(**given: Any) -> tuple[Any, ...]:
    arguments = LoadArguments(**given)
    return repr(arguments.settings()), repr(arguments.model_params()), repr(arguments.context_params(512))


@pytest.mark.parametrize("name", LOAD)
def test_constructor_argument_has_an_effect(name: str) -> None:
    assert converted(**{name: LOAD[name]}) != converted()


@pytest.mark.parametrize("name", REJECTED)
def test_constructor_argument_is_rejected(name: str) -> None:
    with pytest.raises(UnsupportedError, match=name):
        Llama(TINY, **{name: REJECTED[name]})


def test_every_constructor_argument_has_a_test() -> None:
    known = {*inspect.signature(LoadArguments).parameters, "model_path"}
    assert known == {*LOAD, *REJECTED, *IDLE, *TESTED_HERE}
    assert all(f"``{name}``" in (compat.__doc__ or "") for name in IDLE)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"numa": 9}, ValueError),
        ({"draft_model": lambda tokens: tokens}, UnsupportedError),
        ({"kv_overrides": {"a": None}}, TypeError),
        ({"chat_handler": 3}, TypeError),
        ({"split_mode": 9}, ValueError),
        ({"verbos": True}, TypeError),
    ],
)
def test_constructor_rejects_values(given: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(given)).rstrip("_")):
        Llama(TINY, **given)


def test_seed_and_penalty_window() -> None:
    def text(**given: Any) -> str:
        with Llama(TINY, n_ctx=128, **given) as model:
            return str(model(PROMPT, max_tokens=12, temperature=1.5, top_k=0, repeat_penalty=3.0)["choices"][0]["text"])

    assert text(seed=3) == text(seed=3) != text(seed=4)
    assert text(seed=3, last_n_tokens_size=0) != text(seed=3)
    assert LoadArguments(seed=-1).chosen_seed is None and LoadArguments(seed=None).chosen_seed is None


def test_logits_all_keeps_the_scores() -> None:
    with Llama(TINY, n_ctx=128, logits_all=True) as every, Llama(TINY, n_ctx=128) as last:
        tokens = every.tokenize(b"1 2 3 4")
        for model in (every, last):
            model.eval(tokens)
        assert every.scores.shape == (len(tokens), every.n_vocab()) and last.scores.shape == (1, every.n_vocab())
        np.testing.assert_allclose(every.scores[-1], last.scores[-1], atol=1e-4)
        assert len(every.eval_logits) == len(tokens) and list(every.eval_tokens) == tokens
        assert every.sample(temp=0, idx=1) == int(every.scores[1].argmax())
        with pytest.raises(ValueError, match="logits_all=True"):
            last.sample(temp=0, idx=1)


def test_vocab_only_rejects_text() -> None:
    with Llama(TINY, vocab_only=True) as model:
        for call in (lambda: model("a"), model.n_ctx, lambda: model.eval([1]), lambda: model.embed("a")):
            with pytest.raises(UnsupportedError, match="vocab_only"):
                call()


def processor(ids: Any, scores: Any) -> Any:
    return np.roll(scores, 1)


# The arguments of create_completion: another value, and arguments of both calls.
COMPLETION: dict[str, tuple[Any, dict[str, Any]]] = {
    "max_tokens": (3, {}),
    "temperature": (0.0, {}),
    "top_p": (0.01, {}),
    "min_p": (1.0, {}),
    "typical_p": (0.01, {}),
    "logprobs": (1, {}),
    "echo": (True, {}),
    "stop": ("e", {}),
    "frequency_penalty": (-2.0, {}),
    "presence_penalty": (-2.0, {}),
    "repeat_penalty": (0.2, {}),
    "top_k": (1, {}),
    "seed": (99, {}),
    "mirostat_mode": (2, {}),
    "mirostat_tau": (0.01, {"mirostat_mode": 2}),
    "mirostat_eta": (3.0, {"mirostat_mode": 2}),
    "model": ("name", {}),
    "grammar": (LlamaGrammar.from_string('root ::= "yes"'), {}),
    "logit_bias": ({260: 100.0}, {}),
    "stopping_criteria": (StoppingCriteriaList([lambda ids, scores: len(ids) > 20]), {}),
    "logits_processor": (LogitsProcessorList([processor]), {}),
}
SAMPLED: dict[str, Any] = {"max_tokens": 24, "temperature": 1.5, "top_k": 0, "min_p": 0.0, "top_p": 1.0, "seed": 1}


def outcome(response: dict[str, Any]) -> Any:
    return response["model"], response["choices"]


@pytest.mark.parametrize("name", COMPLETION)
def test_completion_argument_has_an_effect(llama: Llama, name: str) -> None:
    value, more = COMPLETION[name]
    without = outcome(llama(PROMPT, **(SAMPLED | more)))
    assert without == outcome(llama(PROMPT, **(SAMPLED | more)))
    assert outcome(llama(PROMPT, **(SAMPLED | more | {name: value}))) != without


def test_every_completion_argument_has_a_test(llama: Llama) -> None:
    assert {*COMPLETION, "prompt", "suffix", "stream", "tfs_z"} == set(inspect.signature(llama).parameters)
    with pytest.raises(UnsupportedError, match="tfs_z"):
        llama("x", tfs_z=0.5)
    with pytest.raises((UnsupportedError, ValueError), match="[Ii]nfill"):
        llama("x", suffix="y")  # the model has no tokens for it
    with pytest.raises(UnsupportedError, match="logprobs"):
        llama("x", suffix="y", logprobs=1)
    with pytest.raises(UnsupportedError, match="suffix"):
        llama("x", suffix="y", logits_processor=LogitsProcessorList([processor]))
    with pytest.raises(TypeError, match="LlamaGrammar"):
        llama("x", grammar="root ::= 'x'")  # type: ignore[arg-type]


TOOL = {"name": "f", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}
CHAT: dict[str, tuple[Any, dict[str, Any]]] = {
    name: case for name, case in COMPLETION.items() if name not in ("echo", "stopping_criteria", "logprobs")
} | {
    "response_format": ({"type": "json_object"}, {}),
    "logprobs": (True, {}),
    "top_logprobs": (3, {"logprobs": True}),
    "tools": ([{"type": "function", "function": TOOL}], {"tool_choice": None, "stop": None}),
    "functions": ([TOOL], {}),
    "tool_choice": ("none", {"tools": [{"type": "function", "function": TOOL}]}),
    "function_call": ({"name": "f"}, {"functions": [TOOL]}),
}


def chat(llama: Llama, **given: Any) -> Any:
    try:
        return outcome(llama.create_chat_completion([{"role": "user", "content": PROMPT}], **(SAMPLED | given)))
    except UnsupportedError as error:
        return str(error)


@pytest.mark.parametrize("name", CHAT)
def test_chat_argument_has_an_effect(llama: Llama, name: str) -> None:
    value, more = CHAT[name]
    assert chat(llama, **(more | {name: value})) != chat(llama, **more)


def test_every_chat_argument_has_a_test(llama: Llama) -> None:
    known = set(inspect.signature(llama.create_chat_completion).parameters)
    assert {*CHAT, "messages", "stream", "tfs_z"} == known
    for given, message in (
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"tool_choice": "required"}, "no tools"),
        ({"functions": [TOOL], "tools": [{"type": "function", "function": TOOL}]}, "functions and tools"),
        ({"functions": [TOOL], "function_call": "none", "tool_choice": "none"}, "function_call and tool_choice"),
        ({"functions": [TOOL], "function_call": {"name": "g"}}, "'g'"),
        ({"tfs_z": 0.5}, "tfs_z"),
    ):
        with pytest.raises((ValueError, UnsupportedError), match=message):
            llama.create_chat_completion([{"role": "user", "content": "x"}], max_tokens=1, **given)


GENERATION: dict[str, tuple[Any, dict[str, Any]]] = {
    "temp": (0.0, {}),
    "top_k": (1, {}),
    "top_p": (0.01, {}),
    "min_p": (1.0, {}),
    "typical_p": (0.01, {}),
    "repeat_penalty": (0.2, {}),
    "frequency_penalty": (-2.0, {}),
    "presence_penalty": (-2.0, {}),
    "mirostat_mode": (2, {}),
    "mirostat_tau": (0.01, {"mirostat_mode": 2}),
    "mirostat_eta": (3.0, {"mirostat_mode": 2}),
    "logits_processor": (LogitsProcessorList([processor]), {}),
    "grammar": (LlamaGrammar.from_string('root ::= "yes yes yes yes yes yes yes yes yes yes yes"'), {}),
    "stopping_criteria": (StoppingCriteriaList([lambda ids, scores: len(ids) > 20]), {}),
}


@pytest.mark.parametrize("name", GENERATION)
def test_generation_argument_has_an_effect(llama: Llama, name: str) -> None:
    value, more = GENERATION[name]
    tokens, base = llama.tokenize(PROMPT.encode()), {"temp": 1.5, "top_k": 0, "min_p": 0.0, "top_p": 1.0} | more
    without = list(itertools.islice(llama.generate(tokens, **base), 20))
    assert without == list(itertools.islice(llama.generate(tokens, **base), 20))
    assert list(itertools.islice(llama.generate(tokens, **(base | {name: value})), 20)) != without


def test_generate_keeps_or_replaces_tokens(llama: Llama) -> None:
    tokens = llama.tokenize(PROMPT.encode())
    first = next(llama.generate(tokens, temp=0))
    assert llama.n_tokens == len(tokens)
    assert next(llama.generate(tokens, temp=0)) == first  # those in memory are used again
    next(llama.generate([first], temp=0, reset=False))
    assert llama.input_ids.tolist() == [*tokens, first]
    llama.n_tokens = len(tokens) - 1
    llama.eval(tokens[-1:])
    assert llama.sample(temp=0) == first
    made = llama.generate(tokens, temp=0)
    next(made)
    made.send([5, 6])
    assert llama.input_ids.tolist() == [*tokens, first, 5, 6]


def test_lora_has_its_weight(llama: Llama, tmp_path: Path) -> None:
    path = write_adapter(tmp_path / "a.gguf", 1)

    def texts(**given: Any) -> tuple[str, list[int]]:
        with Llama(TINY, n_ctx=128, **given) as model:
            tokens = model.tokenize(b"Hello")
            looped = list(itertools.islice(model.generate(tokens, temp=0), 8))
            return model(tokens, max_tokens=8, temperature=0)["choices"][0]["text"], looped

    found = [texts(), texts(lora_path=str(path)), texts(lora_path=str(path), lora_scale=-3.0)]
    assert len({text for text, _ in found}) == 3 and len({tuple(tokens) for _, tokens in found}) == 3
