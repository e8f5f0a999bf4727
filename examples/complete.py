"""Continue a text. usage: complete.py [TEXT]"""

import sys

from cyllama import LLM

text = sys.argv[1] if len(sys.argv) > 1 else "The capital of France is"
with LLM("smollm2-135m-instruct", n_ctx=1024) as llm:
    done = llm.complete(text, max_tokens=24, temperature=0)
    print(text + done.text)
    print(f"[{done.usage.completion_tokens} tokens, {done.timings.predicted_per_second:.0f} per second]")
