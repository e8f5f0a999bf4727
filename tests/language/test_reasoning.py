"""Reasoning is separated from the text, in responses and in streams."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from language.conftest import CHAT_MODEL, TEMPLATES

from cyllama import LLM

# A grammar replaces a model that reasons; the form is the template's.
THOUGHT = 'root ::= "<think>\\nTwo and two.\\n</think>\\n\\nFour."'


@pytest.fixture(scope="module")
def reasoner() -> Iterator[LLM]:
    template = (TEMPLATES / "Qwen-Qwen3-0.6B.jinja").read_text()
    with LLM(CHAT_MODEL, n_ctx=1024, chat_template=template) as model:
        yield model


def test_separates_reasoning(reasoner: LLM) -> None:
    response = reasoner.chat("What is 2 + 2?", grammar=THOUGHT, max_tokens=40)
    assert response.reasoning is not None and response.message.reasoning_content == response.reasoning
    assert (response.reasoning.strip(), response.text) == ("Two and two.", "Four.")


def test_separates_reasoning_in_streams(reasoner: LLM) -> None:
    reasoning, text = "", ""
    for part in reasoner.chat("What is 2 + 2?", grammar=THOUGHT, max_tokens=40, stream=True):
        delta = part.choices[0].delta if part.choices else {}
        reasoning += delta.get("reasoning_content") or ""
        text += part.text
    assert (reasoning.strip(), text) == ("Two and two.", "Four.")


def test_keeps_reasoning_in_text(reasoner: LLM) -> None:
    response = reasoner.chat("What is 2 + 2?", grammar=THOUGHT, max_tokens=40, reasoning_format="none")
    assert response.reasoning is None and response.text == "<think>\nTwo and two.\n</think>\n\nFour."


def test_disables_reasoning(reasoner: LLM) -> None:
    prompt = reasoner.render("Hello", chat_template_kwargs={"enable_thinking": False})
    assert prompt.endswith("<think>\n\n</think>\n\n") and "<think>" not in reasoner.render("Hello")


# ----------------------------------------------------------------------------------------- budgets


QUESTION = "Why is the sky blue?"
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 24}


@pytest.fixture(scope="module")
def thinking() -> Iterator[LLM]:
    with LLM(CHAT_MODEL, n_ctx=1024, n_parallel=1, chat_template=TEMPLATES / "Qwen-QwQ-32B.jinja") as found:
        yield found


@pytest.mark.parametrize("stream", [False, True])
def test_budget_ends_the_reasoning(thinking: LLM, stream: bool) -> None:
    def ask(**fields: Any) -> Any:
        found: Any = thinking.chat(QUESTION, stream=stream, **GREEDY, **fields)
        return found.result() if stream else found

    whole = ask()
    assert whole.reasoning and not whole.text
    short = ask(reasoning_budget_tokens=4)
    assert short.reasoning.strip() and whole.reasoning.startswith(short.reasoning.rstrip())
    assert 0 < len(thinking.tokenize(short.reasoning)) <= 4
    none = ask(reasoning_budget_tokens=0)
    assert not (none.reasoning or "").strip() and none.text.strip() and "think>" not in none.text


def test_message_precedes_the_end(thinking: LLM) -> None:
    fields: Any = {"reasoning_budget_tokens": 4, "reasoning_budget_message": " Enough."}
    assert str(thinking.chat(QUESTION, **GREEDY, **fields).reasoning).endswith(" Enough.")


def test_tags_of_the_request_replace_those_of_the_template(thinking: LLM) -> None:
    """The reasoning of the template begins with another tag, so the budget does not count it."""
    fields: Any = {"reasoning_budget_tokens": 2, "reasoning_budget_start_tag": "<other>"}
    assert thinking.chat(QUESTION, **GREEDY, **fields).reasoning == thinking.chat(QUESTION, **GREEDY).reasoning
