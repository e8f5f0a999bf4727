"""Invalid values of fields are rejected, never silently ignored."""

from __future__ import annotations

from typing import Any

import pytest

from cyllama import LLM
from cyllama.llama._validation import SAMPLERS, request_fields


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("logit_bias", 5, "logit_bias is 5"),
        ("logit_bias", "x", "logit_bias is 'x'"),
        ("logit_bias", [[1, 2, 3]], "expected a mapping, or pairs"),
        ("logit_bias", {10**9: 1.0}, "has the token 1000000000, expected 0 to 49151"),
        ("logit_bias", {"-1": 1.0}, "has the token '-1'"),
        ("logit_bias", {1: "much"}, "is 'much', expected a number, or False"),
        ("logit_bias", [[1, True]], "is True, expected a number, or False"),
        ("stop", 5, "stop is 5"),
        ("stop", ["a", None], "expected a string or"),
        ("stop", {"a": 1}, "expected a string or"),
        ("samplers", ["top_k", "topk2"], "samplers has 'topk2'"),
        ("samplers", 7, "samplers is 7"),
        ("lora", [{"id": 0, "scale": 1.0}], "0 adapters are loaded"),
        ("lora", [3], "expected a mapping with id and scale"),
        ("id_slot", 4, "expected -1 .any. to 3"),
        ("id_slot", "0", "id_slot is '0'"),
        ("grammar", 5, "the grammar is 5"),
        ("max_tokens", 2**31, "max_tokens is 2147483648"),
        ("max_tokens", -(2**63), "max_tokens is"),
        ("n_probs", -(2**31) - 1, "n_probs is"),
        ("temperature", 1e308, "temperature is 1e.308"),
        ("seed", 2**32, "seed is"),
        ("stream_options", "x", "stream_options is 'x'"),
        ("reasoning_format", "x", "Unknown reasoning format"),
        ("temperature", float("nan"), "temperature is nan, expected a finite number"),
        ("temperature", "hot", "temperature is 'hot', expected a number"),
        ("temperature", -1, "temperature is -1, expected 0 or more"),
        ("min_p", [], r"min_p is \[\], expected a number"),
        ("top_p", 5, "top_p is 5, expected 0 to 1"),
        ("top_k", -1, "top_k is -1, expected 0 or more"),
        ("mirostat", 3, "mirostat is 3, expected 0 to 2"),
        ("adaptive_target", 1.5, "adaptive_target is 1.5, expected 1 or less"),
        ("max_tokens", 5.5, "max_tokens is 5.5, expected an integer"),
        ("max_tokens", True, "max_tokens is True, expected an integer"),
        ("max_completion_tokens", "5", "max_completion_tokens is '5', expected an integer"),
        ("n", 1.0, "n is 1.0, expected an integer"),
        ("cache_prompt", 1, "cache_prompt is 1, expected True or False"),
        ("ignore_eos", "no", "ignore_eos is 'no', expected True or False"),
        ("repeat_last_n", 2**31 - 1, "repeat_last_n is 2147483647, expected 1048576 at most"),
        ("dry_penalty_last_n", 2**20 + 1, "dry_penalty_last_n is 1048577, expected 1048576 at most"),
        ("dry_sequence_breakers", ["a"] * 300, "dry_sequence_breakers has 300 items"),
        ("stop", ["a"] * 300, "stop has 300 items"),
        ("stop", "a" * 2000, "stop has an item of more than 1000 characters"),
        ("samplers", "k" * 100, "samplers has 100 items, expected 64 at most"),
        ("logit_bias", [[1, 0.0]] * 200_000, "logit_bias has 200000 items"),
        ("response_format", {"properties": {f"p{i}": {} for i in range(300)}}, "300 properties in one object"),
        ("json_schema", {"properties": {f"p{i}": {} for i in range(300)}}, "300 properties in one object"),
        ("grammar_triggers", [{"type": 2, "value": "((("}], "the request has no option 'grammar_triggers'"),
        ("chat_parser", "{}", "the request has no option 'chat_parser'"),
        ("preserved_tokens", ["a"], "the request has no option 'preserved_tokens'"),
    ],
)
def test_rejects_invalid_value(llm: LLM, field: str, value: Any, message: str) -> None:
    options: Any = {"max_tokens": 1, field: value}
    with pytest.raises((TypeError, ValueError), match=message):
        llm.chat("x", **options)


def test_checks_every_number_of_the_schema(llm: LLM) -> None:
    kinds = {name: info["kind"] for name, info in request_fields().items()}
    assert set(kinds.values()) == {"integer", "number", "flag", ""}
    for name, kind in kinds.items():
        for wrong in {"integer": (1.5, "1"), "number": (True, "1"), "flag": (1, "yes")}.get(kind, ()):
            if name not in ("stream", "logprobs"):
                with pytest.raises(TypeError, match=f"{name} is {wrong!r}, expected"):
                    llm.complete("x", **{"max_tokens": 1, name: wrong})


def test_accepts_every_form_of_logit_bias(llm: LLM) -> None:
    """Upstream takes numbers, texts and False."""
    plain = llm.complete("The capital of France is", temperature=0, max_tokens=1).text
    (token,) = llm.tokenize(plain)
    for bias in ({token: -100}, {str(token): -100.0}, {plain: False}, [[token, -100]], [(plain, False)]):
        assert llm.complete("The capital of France is", temperature=0, max_tokens=1, logit_bias=bias).text != plain
    assert llm.complete("The capital of France is", temperature=0, max_tokens=1, logit_bias={}).text == plain


def test_accepts_stop_as_string(llm: LLM) -> None:
    found = llm.complete("1 2 3 4 5", temperature=0, max_tokens=24, stop="8")
    assert "7" in found.text and "8" not in found.text and found.finish_reason == "stop"
    assert llm.complete("1 2 3 4 5", temperature=0, max_tokens=4, stop="8").finish_reason == "length"


def test_applies_samplers_in_order(llm: LLM) -> None:
    """Upstream's default samplers are accepted, and their order has an effect."""
    default = llm.properties.default_generation_settings.params.samplers
    assert {name.replace("_", "") for name in default} <= SAMPLERS
    given: dict[str, Any] = {"temperature": 1.8, "top_k": 1, "seed": 5, "max_tokens": 16}
    greedy = llm.complete("The", temperature=0, max_tokens=16).text
    assert llm.complete("The", samplers=["top-k", "temp"], **given).text == greedy
    assert llm.complete("The", samplers=["temperature"], **given).text != greedy


def test_accepts_seeds_of_32_bits(llm: LLM) -> None:
    one, two = (
        llm.complete("The", seed=2**32 - 2, temperature=1.5, max_tokens=12, cache_prompt=False).text for _ in "ab"
    )
    assert one == two
