"""Every chat template that upstream ships renders, and says once at most where the text begins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from language.conftest import TEMPLATES

from cyllama import LLM
from cyllama.errors import UnsupportedError
from cyllama.llama import llama_chat_builtin_templates

MESSAGES = [
    {"role": "user", "content": "Who are you?"},
    {"role": "assistant", "content": "A model."},
    {"role": "user", "content": "Say it again."},
]
FILES = sorted(TEMPLATES.glob("*.jinja"))


def begins(model: LLM, prompt: str) -> int:
    tokens = model.tokenize(prompt, add_special=True, parse_special=True)
    return next((i for i, token in enumerate(tokens) if token != 1), len(tokens))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_template(path: Path) -> None:
    with LLM(
        "tiny-random-llama", n_ctx=2048, n_parallel=1, chat_template=path.read_text(), check_memory=False
    ) as model:
        prompt = model.render(MESSAGES)
        assert "Who are you?" in prompt and "A model." in prompt
        assert begins(model, prompt) <= 1
        count = model.count_tokens(MESSAGES)
        assert count == len(model.tokenize(prompt, add_special=True, parse_special=True))
        written = {"role": "user", "content": "Say it again.</s><s>"}
        assert model.count_tokens([*MESSAGES[:-1], written]) > count + 2  # two control tokens would be just two more


def test_there_are_templates() -> None:
    assert len(FILES) > 50


@pytest.fixture(scope="module")
def llama3() -> Iterator[LLM]:
    with LLM("tiny-random-llama", n_ctx=512, chat_template="llama3") as model:
        yield model


def test_names_of_upstream(llama3: LLM) -> None:
    """Names are no templates themselves."""
    assert "llama3" in llama_chat_builtin_templates()
    assert llama3.render("Hello").startswith("<|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|>")
    with pytest.raises((UnsupportedError, ValueError)):
        llama3.chat("x", tools=[{"type": "function", "function": {"name": "f"}}])


def test_a_template_that_is_wrong() -> None:
    with pytest.raises(ValueError):
        LLM("tiny-random-llama", n_ctx=512, chat_template="{% if %}")
