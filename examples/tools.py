"""Let a model call Python functions. usage: tools.py TEMPLATE

TEMPLATE is a Jinja chat template with tool calling, for models such as this one whose own template does not support it:
for example llama.cpp's models/templates/Qwen-Qwen2.5-7B-Instruct.jinja.
"""

import sys
from pathlib import Path

from cyllama import LLM


def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: The first number.
        b: The second number.
    """
    return a + b


with LLM("smollm2-135m-instruct", n_ctx=2048, chat_template=Path(sys.argv[1]).read_text()) as llm:
    response = llm.chat("What is 2 + 3?", tools=[add], tool_choice="required", max_tokens=64, temperature=0)
    for call in response.tool_calls:
        print(f"tool call: {call['function']['name']}({call['function']['arguments']})")
