"""Reasoning is separated from the text, in responses and in streams."""

from __future__ import annotations

from collections.abc import Iterator

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
