"""Log probabilities: one entry for each token, in every mode."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from cyllama import LLM, models
from cyllama.errors import UnsupportedError
from cyllama.llama import LlamaBatch, LlamaContext, LlamaContextParams, LlamaModel

JAPANESE = 'root ::= "日本語 🎉 END"'
PROMPT = "The capital of France is Paris. 日本"


@pytest.fixture(scope="module")
def tiny() -> Iterator[LLM]:
    with LLM("tiny-random-llama", n_ctx=2048, n_parallel=2, n_threads=1) as found:
        yield found


def response(found: Any) -> Any:
    return found.result() if hasattr(found, "result") else found


def rows_of(found: Any) -> list[Any]:
    return list(found.choices[0].logprobs["content"])


def text_of(rows: list[Any]) -> str:
    return b"".join(bytes(row["bytes"]) for row in rows).decode()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("chat", [False, True])
def test_one_entry_per_token(tiny: LLM, chat: bool, stream: bool) -> None:
    """Of characters that several tokens form."""
    call: Any = tiny.chat if chat else tiny.complete
    fields: dict[str, Any] = {"top_logprobs": 2, "logprobs": True} if chat else {"logprobs": 2}
    found = response(call("Hello", grammar=JAPANESE, max_tokens=60, stream=stream, seed=1, **fields))
    rows = rows_of(found)
    assert found.text == text_of(rows) == "日本語 🎉 END"
    assert len(rows) == found.usage.completion_tokens > 8
    assert all(row["logprob"] <= 0 and len(row["top_logprobs"]) == 2 for row in rows)


@pytest.mark.parametrize("stream", [False, True])
def test_returned_tokens_are_those_of_the_entries(tiny: LLM, stream: bool) -> None:
    fields: Any = {"grammar": JAPANESE, "max_tokens": 60, "logprobs": 1, "return_tokens": True, "stream": stream}
    choice = response(tiny.complete("Hello", **fields)).choices[0]
    assert choice["tokens"] == [row["id"] for row in choice["logprobs"]["content"]]


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_text_has_no_entries(tiny: LLM, stream: bool) -> None:
    fields: Any = {"grammar": JAPANESE, "max_tokens": 60, "logprobs": 1, "stop": ["語 🎉"], "stream": stream}
    found = response(tiny.complete("Hello", **fields))
    assert found.text == "日本" == text_of(rows_of(found)) and found.finish_reason == "stop"


@pytest.mark.parametrize("stream", [False, True])
def test_text_that_begins_like_a_stop_text_is_kept_at_the_limit(tiny: LLM, stream: bool) -> None:
    fields: Any = {"grammar": 'root ::= "abcdefgh" [a-z]*', "max_tokens": 2, "stop": ["abcdefgh!"], "seed": 1}
    found = response(tiny.complete("Hello", logprobs=1, stream=stream, **fields))
    assert found.finish_reason == "length" and found.text and "abcdefgh".startswith(found.text[:8])
    assert found.text == text_of(rows_of(found)) and len(rows_of(found)) == 2


@pytest.mark.parametrize("stream", [False, True])
def test_part_of_a_character_has_entries_at_the_limit(tiny: LLM, stream: bool) -> None:
    # The vocabulary has tokens for the bytes of this character, and none for the whole.
    found = response(tiny.complete("Hello", grammar='root ::= "🦙"', max_tokens=2, logprobs=1, stream=stream))
    assert len(rows_of(found)) == found.usage.completion_tokens == 2
    assert b"".join(bytes(row["bytes"]) for row in rows_of(found)) == "🦙".encode()[:2]


@pytest.mark.parametrize("stream", [False, True])
def test_drafted_tokens_have_their_probabilities(stream: bool) -> None:
    story = "1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2,"
    fields: Any = {"temperature": 0, "max_tokens": 24, "ignore_eos": True, "n_probs": 3}
    with LLM("smollm2-135m-instruct", n_ctx=512, n_parallel=1) as plain:
        expected = plain.complete(story, **fields)
    sizes = {"spec-ngram-simple-size-n": 3, "spec-ngram-simple-size-m": 8}
    with LLM("smollm2-135m-instruct", n_ctx=512, n_parallel=1, draft_model="ngram", options=sizes) as drafting:
        found = response(drafting.complete(story, stream=stream, **fields))
        assert found.timings.draft_n_accepted > 0
        with pytest.raises(UnsupportedError):
            drafting.complete(story, post_sampling_probs=True, **fields)
    assert found.text == expected.text
    for row, other in zip(rows_of(found), rows_of(expected), strict=True):
        assert row["id"] == other["id"] and row["logprob"] == pytest.approx(other["logprob"], abs=0.05)
        assert row["top_logprobs"][0]["id"] == other["top_logprobs"][0]["id"]


def test_best_of_works_with_drafts() -> None:
    with LLM("tiny-random-llama", draft_model="ngram", n_ctx=512, n_parallel=2, n_threads=1) as llm:
        assert len(llm.complete("Hello", best_of=2, n=1, max_tokens=4, temperature=1).choices) == 1


# ------------------------------------------------------------------------------------------ prompts


@pytest.mark.parametrize("stream", [False, True])
def test_echo_has_the_logprobs_of_the_prompt(llm: LLM, stream: bool) -> None:
    fields: Any = {"max_tokens": 3, "temperature": 0, "grammar": "root ::= [a-z]+"}  # no part of a character
    found = response(llm.complete(PROMPT, echo=True, logprobs=2, stream=stream, **fields))
    rows, tokens = rows_of(found), llm.tokenize(PROMPT)
    assert [row["id"] for row in rows[: len(tokens)]] == tokens and len(rows) == len(tokens) + 3
    assert found.text == text_of(rows) and found.text.startswith(PROMPT)
    assert rows[0]["logprob"] is None and rows[0]["top_logprobs"] == []
    for i in range(1, len(tokens)):  # the same as after the text before it
        (row,) = rows_of(llm.complete(tokens[:i], max_tokens=1, logprobs=2, temperature=0))
        (same,) = [top for top in rows[i]["top_logprobs"] if top["id"] == row["id"]]
        assert same["logprob"] == pytest.approx(row["logprob"], abs=0.05)
        assert rows[i]["logprob"] <= rows[i]["top_logprobs"][0]["logprob"] + 1e-6


def test_echo_scores_a_prompt_of_several_batches(tiny: LLM) -> None:
    tokens = [1, *range(100, 400)]
    found = tiny.complete(tokens, echo=True, logprobs=1, max_tokens=0)
    rows = rows_of(found)
    assert [row["id"] for row in rows] == tokens and found.usage.completion_tokens == 0
    again = rows_of(tiny.complete(tokens, echo=True, logprobs=1, max_tokens=0))
    assert [row["logprob"] for row in again] == [row["logprob"] for row in rows]
    with (
        LlamaModel(models.get("tiny-random-llama")) as model,
        LlamaContext(model, LlamaContextParams(n_ctx=512)) as low,
    ):
        batch = LlamaBatch(n_tokens=len(tokens))
        for position, token in enumerate(tokens):
            batch.add(token, position, [0], True)
        low.decode(batch)
        logits = low.get_logits().reshape(len(tokens), -1)
    expected = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    found_values = [row["logprob"] for row in rows[1:]]
    assert found_values == pytest.approx([expected[i, token] for i, token in enumerate(tokens[1:])], abs=0.05)


def test_echo_scores_every_prompt(tiny: LLM) -> None:
    prompts: list[Any] = ["One two", [5, 6, 7], "One"]
    found = tiny.complete(prompts, n=2, echo=True, logprobs=1, max_tokens=2, ignore_eos=True)
    for i, choice in enumerate(found.choices):
        prompt = prompts[i // 2]
        tokens = tiny.tokenize(prompt) if isinstance(prompt, str) else prompt
        rows = choice["logprobs"]["content"]
        assert [row["id"] for row in rows[: len(tokens)]] == tokens and len(rows) == len(tokens) + 2


def test_prompt_of_tokens_and_texts(tiny: LLM) -> None:
    tokens = tiny.tokenize("One")
    prompt: Any = [*tokens, " two", *tiny.tokenize(" three")]
    whole = [*tokens, *tiny.tokenize(" two"), *tiny.tokenize(" three")]
    found = tiny.complete(prompt, echo=True, logprobs=1, max_tokens=2, temperature=0)
    assert [row["id"] for row in rows_of(found)[:-2]] == whole
    assert found.usage.prompt_tokens == len(whole) and "One two" in found.text.replace("  ", " ")
    assert tiny.complete(whole, max_tokens=2, temperature=0).text == found.text[len(found.text) - len(
        tiny.complete(whole, max_tokens=2, temperature=0).text
    ) :]  # fmt: skip


@pytest.mark.parametrize(
    "fields",
    [
        {"logprobs": 21},
        {"logprobs": 1, "n": 2, "stream": True},
        {"logprobs": 1, "suffix": "x"},
        {"logprobs": 1, "post_sampling_probs": True},
    ],
)
def test_rejects_what_echo_does_not_support(tiny: LLM, fields: Any) -> None:
    with pytest.raises(ValueError, match=r"echo|logprobs"):
        tiny.complete("Hello", echo=True, **fields)


def test_requests_cannot_set_the_internal_field(tiny: LLM) -> None:
    with pytest.raises(TypeError, match="prompt_probs"):
        tiny.complete("Hello", prompt_probs=True)  # type: ignore[call-overload]
