"""Usage, choices and log probabilities agree with a recount, and `parsed` fails without losing the response."""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from cyllama import LLM
from cyllama.errors import SchemaError


@pytest.fixture(scope="module")
def tiny() -> Iterator[LLM]:
    with LLM("tiny-random-llama", n_ctx=4096, n_parallel=4, n_threads=1, options={"no-kv-unified": True}) as found:
        yield found


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("n", [1, 3])
def test_chat_usage_counts_every_choice(tiny: LLM, n: int, stream: bool) -> None:
    fields: Any = {"n": n, "max_tokens": 5, "ignore_eos": True}
    found: Any = tiny.chat("Hello", stream=stream, **fields)
    found = found.result() if stream else found
    assert [choice.index for choice in found.choices] == list(range(n))
    assert found.usage.completion_tokens == 5 * n and found.usage.prompt_tokens == tiny.count_tokens("Hello")
    assert found.usage.total_tokens == found.usage.completion_tokens + found.usage.prompt_tokens


@pytest.mark.parametrize("stream", [False, True])
def test_completion_usage_counts_every_prompt(tiny: LLM, stream: bool) -> None:
    prompts: Any = ["One", "One two three", [1, 5, 6]]
    found: Any = tiny.complete(prompts, n=2, max_tokens=4, ignore_eos=True, stream=stream)
    found = found.result() if stream else found
    assert [choice.index for choice in found.choices] == list(range(6))
    assert found.usage.completion_tokens == 24
    counts = [len(tiny.tokenize(p, add_special=True)) if isinstance(p, str) else len(p) for p in prompts]
    assert found.usage.prompt_tokens == sum(counts)


def test_each_prompt_has_its_own_text(tiny: LLM) -> None:
    fields: Any = {"temperature": 0, "max_tokens": 6, "cache_prompt": False}
    each = [tiny.complete(prompt, **fields).text for prompt in ("One", "Two")]
    assert [choice.text for choice in tiny.complete(["One", "Two"], **fields).choices] == each and each[0] != each[1]


def test_only_the_asked_stream_shows_the_usage(tiny: LLM) -> None:
    for n in (1, 2):
        for include in (False, True):
            options: Any = {"stream_options": {"include_usage": include}}
            with tiny.chat("Hello", stream=True, max_tokens=2, n=n, **options) as chunks:
                shown = [chunk.usage for chunk in chunks if chunk.usage is not None]
            assert len(shown) == include


@pytest.mark.parametrize("field", ["n", "best_of"])
def test_more_choices_than_slots_are_refused(tiny: LLM, field: str) -> None:
    with pytest.raises(ValueError, match=rf"{field} is 5, expected 1 to 4"):
        tiny.complete("x", **{field: 5})  # type: ignore[misc]


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_without_alternatives(tiny: LLM, stream: bool) -> None:
    found: Any = tiny.chat("Hello", logprobs=True, top_logprobs=0, max_tokens=4, ignore_eos=True, stream=stream)
    rows = (found.result() if stream else found).choices[0].logprobs["content"]
    assert rows and all(row["top_logprobs"] == [] and row["logprob"] <= 0 for row in rows)


@pytest.mark.parametrize("stop", ["", [""], [], ["", "never"]])
def test_empty_stop_texts_have_no_effect(tiny: LLM, stop: Any) -> None:
    plain = tiny.complete("Hello", temperature=0, max_tokens=8)
    found = tiny.complete("Hello", temperature=0, max_tokens=8, stop=stop)
    assert found.text == plain.text and found.text


# ------------------------------------------------------------------------------------------- parsed


class Share(BaseModel):
    part: float = Field(gt=1e6, le=1e6 + 1)


@dataclasses.dataclass
class Even:
    number: Annotated[float, Field(multiple_of=0.001, gt=1e6, lt=1e6 + 1)]


@pytest.mark.parametrize(
    "form",
    [
        Share,
        Even,
        {"type": "object", "properties": {"a": {"type": "number", "exclusiveMinimum": 1e6}}, "required": ["a"]},
        {"type": "json_schema", "schema": {"type": "number", "exclusiveMinimum": 5, "exclusiveMaximum": 5.001}},
    ],
)
def test_parsed_fails_without_losing_the_response(tiny: LLM, form: Any) -> None:
    """The grammar does not bound these numbers, and a random model does not know the bounds."""
    for stream in (False, True):
        response: Any = tiny.chat("Hello", response_format=form, max_tokens=300, seed=5, temperature=3.0, stream=stream)
        response = response.result() if stream else response
        assert response.finish_reason == "stop" and response.text and response.usage.completion_tokens > 0
        with pytest.raises(ValueError):
            _ = response.parsed
        with pytest.raises(ValueError):
            _ = response.parsed_choices


@pytest.mark.parametrize("stream", [False, True])
def test_choice_has_a_warning_if_its_text_breaks_a_rule(tiny: LLM, stream: bool) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "number", "minimum": 1e6}}, "required": ["a"]}
    fields: Any = {"max_tokens": 60, "seed": 1, "stream": stream, "temperature": 0}
    found: Any = tiny.chat("Hello", response_format=schema, **fields)
    (choice,) = (found.result() if stream else found).choices
    assert choice.finish_reason == "stop" and json.loads(choice.message.content)["a"] < 1e6
    assert choice.warning.startswith("a ")
    del schema["properties"]["a"]["minimum"]  # type: ignore[attr-defined]
    found = tiny.chat("Hello", response_format=schema, **fields)
    assert (found.result() if stream else found).choices[0].warning is None


def test_schema_error_names_the_place_and_is_picklable() -> None:
    error = pickle.loads(pickle.dumps(SchemaError("a[0].b", "is 1, expected 2")))
    assert (error.path, str(error)) == ("a[0].b", "a[0].b is 1, expected 2")


@pytest.mark.parametrize(
    "form", ["json_object", {"type": "json_object"}, {"type": "json_schema", "json_schema": {"schema": {}}}]
)
def test_any_object_is_an_object(tiny: LLM, form: Any) -> None:
    found = tiny.chat("Hello", response_format=form, max_tokens=300, temperature=3.0, seed=1)
    if found.finish_reason == "stop":
        assert isinstance(found.parsed, dict)
    else:  # upstream also allows a fence, which is no part of the whole text
        assert found.text.lstrip().startswith(("{", "```json"))


def test_format_without_schema_is_refused(tiny: LLM) -> None:
    with pytest.raises(ValueError, match="response_format"):
        tiny.chat("Hello", response_format={"type": "json_schema"})
    with pytest.raises(ValueError, match="exclude each other"):
        tiny.chat("Hello", response_format="json_object", grammar='root ::= "a"')
