"""Let a model call Python functions. usage: tools.py TEMPLATE

The template is for models whose own one knows no tools, such as this small one: any Jinja template that does, for
instance llama.cpp's models/templates/Qwen-Qwen2.5-7B-Instruct.jinja.
"""

import sys
from pathlib import Path

from cyllama import LLM


def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: The first.
        b: The second.
    """
    return a + b


with LLM("smollm2-135m-instruct", n_ctx=2048, chat_template=Path(sys.argv[1]).read_text()) as llm:
    answer = llm.chat("What is 2 + 3?", tools=[add], tool_choice="required", max_tokens=64, temperature=0)
    for call in answer.tool_calls:
        print(f"the model calls {call['function']['name']} with {call['function']['arguments']}")
