"""What a model thinks is told apart from what it says, whole and in parts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from language.conftest import CHAT_MODEL, TEMPLATES

from cyllama import LLM

# A grammar stands in for a model that thinks: the template's own form.
THOUGHT = 'root ::= "<think>\\nTwo and two.\\n</think>\\n\\nFour."'


@pytest.fixture(scope="module")
def thinker() -> Iterator[LLM]:
    template = (TEMPLATES / "Qwen-Qwen3-0.6B.jinja").read_text()
    with LLM(CHAT_MODEL, n_ctx=1024, chat_template=template) as model:
        yield model


def test_thoughts_and_answers(thinker: LLM) -> None:
    answer = thinker.chat("What is 2 + 2?", grammar=THOUGHT, max_tokens=40)
    assert answer.reasoning is not None and answer.message.reasoning_content == answer.reasoning
    assert (answer.reasoning.strip(), answer.text) == ("Two and two.", "Four.")


def test_in_parts(thinker: LLM) -> None:
    thought, said = "", ""
    for part in thinker.chat("What is 2 + 2?", grammar=THOUGHT, max_tokens=40, stream=True):
        delta = part.choices[0].delta if part.choices else {}
        thought += delta.get("reasoning_content") or ""
        said += part.text
    assert (thought.strip(), said) == ("Two and two.", "Four.")


def test_as_it_is(thinker: LLM) -> None:
    answer = thinker.chat("What is 2 + 2?", grammar=THOUGHT, max_tokens=40, reasoning_format="none")
    assert answer.reasoning is None and answer.text == "<think>\nTwo and two.\n</think>\n\nFour."


def test_without_thinking(thinker: LLM) -> None:
    prompt = thinker.render("Hello", chat_template_kwargs={"enable_thinking": False})
    assert prompt.endswith("<think>\n\n</think>\n\n") and "<think>" not in thinker.render("Hello")
