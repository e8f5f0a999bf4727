"""Complete a text. usage: complete.py [PROMPT]"""

import sys

from cyllama import LLM

prompt = sys.argv[1] if len(sys.argv) > 1 else "The capital of France is"
with LLM("smollm2-135m-instruct", n_ctx=1024) as llm:
    completion = llm.complete(prompt, max_tokens=24, temperature=0)
    print(prompt + completion.text)
    speed = completion.timings.predicted_per_second
    print(f"[{completion.usage.completion_tokens} tokens, {speed:.0f} per second]")
