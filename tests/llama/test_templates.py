"""ChatTemplate: the model's template, given templates, with and without Jinja, invalid input."""

from __future__ import annotations

import pytest

from cyllama.errors import ClosedError, UnsupportedError
from cyllama.llama import LlamaModel
from cyllama.llama._templates import ChatTemplate

TURNS = [("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Bye")]
CHATML = "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in TURNS)


def test_template_of_the_model(smol_model: LlamaModel) -> None:
    for jinja in (True, False):
        with ChatTemplate(smol_model, jinja=jinja) as template:
            assert template.apply(TURNS) == CHATML + "<|im_start|>assistant\n"
            assert template.apply(TURNS, add_generation_prompt=False) == CHATML
            assert template.source == smol_model.chat_template()


def test_default_system_message(smol_model: LlamaModel) -> None:
    with ChatTemplate(smol_model) as whole, ChatTemplate(smol_model, jinja=False) as by_heart:
        assert "named SmolLM" in whole.apply([("user", "Hi")])
        assert by_heart.apply([("user", "Hi")]) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_given_templates(tiny_model: LlamaModel) -> None:
    with ChatTemplate(tiny_model, "vicuna") as template:
        assert "USER: Hi" in template.apply([("user", "Hi")])
    with ChatTemplate(tiny_model, "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}") as template:
        assert template.apply([("user", "Grüße 🎉")]) == "[user] Grüße 🎉"


def test_rejects_invalid_input(tiny_model: LlamaModel) -> None:
    with pytest.raises(UnsupportedError, match="no chat template; give one, such as .*vicuna"):
        ChatTemplate(tiny_model)
    with pytest.raises(ValueError, match="cannot be parsed"):
        ChatTemplate(tiny_model, "{% for %}")
    with pytest.raises(TypeError, match="template is 7"):
        ChatTemplate(tiny_model, 7)
    with ChatTemplate(tiny_model, "{{ raise_exception('no') }}") as template:
        with pytest.raises(ValueError, match="Unable to generate"):
            template.apply([("user", "Hi")])
    with ChatTemplate(tiny_model, "no such template", jinja=False) as template:
        with pytest.raises(ValueError, match="refuses the conversation"):
            template.apply([("user", "Hi")])
    with pytest.raises(ClosedError):
        template.apply([("user", "Hi")])
