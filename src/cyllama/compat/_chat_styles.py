"""The chat formats of llama-cpp-python as Jinja templates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["STYLES", "ChatStyle"]

Pair = tuple[str, str]


def _literal(text: str) -> str:
    """Return a text as a string of Jinja."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"


@dataclass(frozen=True)
class ChatStyle:
    """The texts around the messages of a chat.

    Attributes
    ----------
    system, user, assistant : tuple of str
        The texts before and after a message of the role. Messages of tools have those of the user.
    start : str
        The start of the assistant's next message.
    stop : str, optional
        A text that ends the message.
    default_system : str
        The system message of a chat without one.
    joins_system : bool
        The system message is a part of the next message of the user.
    text : str, optional
        The whole template, which replaces the other texts.
    """

    system: Pair = ("", "")
    user: Pair = ("", "")
    assistant: Pair = ("", "")
    start: str = ""
    stop: str | None = None
    default_system: str = ""
    joins_system: bool = False
    text: str | None = None

    @property
    def template(self) -> str:
        """The Jinja template."""
        return self.text or self._template()

    def _template(self) -> str:
        def around(pair: Pair, content: str) -> str:
            return "{{ " + f"{_literal(pair[0])} + {content} + {_literal(pair[1])}" + " }}"

        user = around(self.user, "(m.content or '')")
        system = around(self.system, "(m.content or '')")
        if self.joins_system:
            system = (
                "{% set held.system = " + f"{_literal(self.system[0])} + m.content + {_literal(self.system[1])}" + " %}"
            )
            user = around(self.user, "held.system + (m.content or '')") + "{% set held.system = '' %}"
        default = ""
        if self.default_system:
            block = around(self.system, _literal(self.default_system))
            default = "{% if messages[0].role != 'system' %}" + block + "{% endif %}"
        return (
            "{% set held = namespace(system='') %}"
            + default
            + "{% for m in messages %}{% if m.role == 'system' or m.role == 'developer' %}"
            + system
            + "{% elif m.role == 'assistant' %}"
            + around(self.assistant, "(m.content or '')")
            + "{% else %}"
            + user
            + "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ "
            + _literal(self.start)
            + " }}{% endif %}"
        )


def _colon(user: str, assistant: str, end: str, **more: Any) -> ChatStyle:
    """Return a style of lines with a name and a colon."""
    given = {"system": ("", end), "start": f"{assistant}:"} | more
    return ChatStyle(user=(f"{user}: ", end), assistant=(f"{assistant}: ", end), **given)


def _marks(user: str, assistant: str, end: str, **more: Any) -> ChatStyle:
    """Return a style of marks before and after each message."""
    return ChatStyle(user=(user, end), assistant=(assistant, end), **({"start": assistant} | more))


def _chatml(stop: str = "<|im_end|>", default_system: str = "") -> ChatStyle:
    system, user, assistant = ((f"<|im_start|>{role}\n", "<|im_end|>\n") for role in ("system", "user", "assistant"))
    return ChatStyle(system, user, assistant, assistant[0], stop, default_system)


def _header(role: str) -> str:
    return f"<|start_header_id|>{role}<|end_header_id|>\n\n"


# The calls and results of tools in JSON between tags, as models of the Hermes and Qwen families write them.
_CHATML_TOOLS = (
    "{% if tools %}{{ '<|im_start|>system\\n' }}"
    "{% if messages[0].role == 'system' %}{{ messages[0].content + '\\n\\n' }}{% endif %}"
    "{{ 'You may call one or more of these functions:\\n<tools>' }}"
    "{% for tool in tools %}{{ '\\n' }}{{ tool | tojson }}{% endfor %}"
    "{{ '\\n</tools>\\n\\nWrite each call as a JSON object in tags:\\n<tool_call>\\n"
    '{"name": <function name>, "arguments": <arguments>}'
    "\\n</tool_call><|im_end|>\\n' }}"
    "{% elif messages[0].role == 'system' %}"
    "{{ '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}{% endif %}"
    "{% for m in messages %}"
    "{% if m.role == 'assistant' %}{{ '<|im_start|>assistant\\n' + (m.content or '') }}"
    "{% for call in m.tool_calls or [] %}"
    '{{ \'\\n<tool_call>\\n{"name": "\' + call.function.name + \'", "arguments": \' }}'
    "{{ call.function.arguments | tojson }}{{ '}\\n</tool_call>' }}{% endfor %}{{ '<|im_end|>\\n' }}"
    "{% elif m.role == 'tool' %}"
    "{{ '<|im_start|>user\\n<tool_response>\\n' + m.content + '\\n</tool_response><|im_end|>\\n' }}"
    "{% elif m.role != 'system' or not loop.first %}"
    "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

STYLES: dict[str, ChatStyle] = {
    "llama-2": ChatStyle(
        system=("<<SYS>>\n", "\n<</SYS>>\n\n"),
        user=("[INST] ", " [/INST]"),
        assistant=(" ", " </s>"),
        joins_system=True,
    ),
    "llama-3": ChatStyle(
        system=(_header("system"), "<|eot_id|>"),
        user=(_header("user"), "<|eot_id|>"),
        assistant=(_header("assistant"), "<|eot_id|>"),
        start=_header("assistant"),
        stop="<|eot_id|>",
    ),
    "alpaca": ChatStyle(
        system=("", "\n\n"),
        user=("### Instruction: ", "\n\n"),
        assistant=("### Response: ", "</s>"),
        start="### Response:",
    ),
    "qwen": _chatml("<|endoftext|>", default_system="You are a helpful assistant."),
    "vicuna": ChatStyle(system=("", " "), user=("USER: ", " "), assistant=("ASSISTANT: ", "</s>"), start="ASSISTANT:"),
    "oasst_llama": _marks("<|prompter|>", "<|assistant|>", "</s>", system=("[INST] <<SYS>>\n", "\n<</SYS>>\n\n")),
    "baichuan-2": _marks("<reserved_106>", "<reserved_107>", ""),
    "baichuan": _marks("<reserved_102>", "<reserved_103>", ""),
    "openbuddy": _colon("User", "Assistant", "\n"),
    "redpajama-incite": _colon("<human>", "<bot>", "\n", stop="<human>"),
    "snoozy": _colon("### Prompt", "### Response", "\n", system=("### Instruction:\n", "\n"), stop="###"),
    "phind": _colon("### User Message", "### Assistant", "\n\n", system=("### System Prompt\n", "\n\n")),
    "intel": _marks("### User:\n", "### Assistant:\n", "\n", system=("### System:\n", "\n")),
    "open-orca": _colon("User", "Assistant", "<|end_of_turn|>\n", start="Assistant: ", stop="User"),
    "mistrallite": _marks("<|prompter|>", "</s>\n<|assistant|>", " ", system=("<|system|>", "</s>")),
    "zephyr": _marks("<|user|>\n", "<|assistant|>\n", "</s>\n", system=("<|system|>\n", "</s>\n"), stop="</s>"),
    "pygmalion": _marks("<|user|>\n", "<|model|>\n", "\n\n", system=("<|system|>", "\n\n"), stop="\n"),
    "chatml": _chatml(),
    "mistral-instruct": ChatStyle(
        system=("", "\n\n"), user=("[INST] ", " [/INST]"), assistant=("", "</s>"), stop="</s>", joins_system=True
    ),
    "chatglm3": ChatStyle(
        system=("<|system|>\n", ""),
        user=("<|user|>\n ", ""),
        assistant=("<|assistant|>\n ", ""),
        start="<|assistant|>",
        stop="</s>",
    ),
    "openchat": _marks(
        "GPT4 Correct User: ",
        "GPT4 Correct Assistant: ",
        "<|end_of_turn|>",
        system=("", "<|end_of_turn|>"),
        start="GPT4 Correct Assistant:",
        stop="<|end_of_turn|>",
    ),
    "saiga": _marks("<s>user\n", "<s>bot\n", "</s>", system=("<s>system\n", "</s>"), start="<s>bot"),
    "gemma": _marks(
        "<start_of_turn>user\n",
        "<start_of_turn>model\n",
        "<end_of_turn>\n",
        system=("", "\n\n"),
        stop="<end_of_turn>",
        joins_system=True,
    ),
    "chatml-function-calling": ChatStyle(text=_CHATML_TOOLS, start="<|im_start|>assistant\n", stop="<|im_end|>"),
    # those of multimodal models
    "llava-1-5": _colon("\nUSER", "\nASSISTANT", "", start="\nASSISTANT: "),
    "llava-1-6": _colon("\nUSER", "\nASSISTANT", "", start="\nASSISTANT: "),
    "moondream2": _colon("\n\nQuestion", "\n\nAnswer", ""),
}
