"""Every chat template of upstream renders, with at most one token that starts the text."""

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


def count_bos(model: LLM, prompt: str) -> int:
    tokens = model.tokenize(prompt, add_special=True, parse_special=True)
    return next((i for i, token in enumerate(tokens) if token != 1), len(tokens))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_renders_template(path: Path) -> None:
    with LLM(
        "tiny-random-llama", n_ctx=2048, n_parallel=1, chat_template=path.read_text(), check_memory=False
    ) as model:
        prompt = model.render(MESSAGES)
        assert "Who are you?" in prompt and "A model." in prompt
        assert count_bos(model, prompt) <= 1
        count = model.count_tokens(MESSAGES)
        assert count == len(model.tokenize(prompt, add_special=True, parse_special=True))
        injected = {"role": "user", "content": "Say it again.</s><s>"}
        assert model.count_tokens([*MESSAGES[:-1], injected]) > count + 2  # more than two control tokens


def test_templates_exist() -> None:
    assert len(FILES) > 50


@pytest.fixture(scope="module")
def llama3() -> Iterator[LLM]:
    with LLM("tiny-random-llama", n_ctx=512, chat_template="llama3") as model:
        yield model


def test_accepts_builtin_template_names(llama3: LLM) -> None:
    """A name is not used as a template itself."""
    assert "llama3" in llama_chat_builtin_templates()
    assert llama3.render("Hello").startswith("<|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|>")
    with pytest.raises((UnsupportedError, ValueError)):
        llama3.chat("x", tools=[{"type": "function", "function": {"name": "f"}}])


def test_rejects_invalid_template() -> None:
    with pytest.raises(ValueError):
        LLM("tiny-random-llama", n_ctx=512, chat_template="{% if %}")
