"""Ask, and see the answer while it is written. usage: chat.py [QUESTION]"""

import sys

from cyllama import LLM

question = sys.argv[1] if len(sys.argv) > 1 else "What is the capital of France? Answer with one word."
with (
    LLM("smollm2-135m-instruct", n_ctx=1024) as llm,
    llm.chat(question, stream=True, max_tokens=64, temperature=0) as parts,
):
    for part in parts:
        print(part.text, end="", flush=True)
print()
