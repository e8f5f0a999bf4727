"""Stream the response to a chat message. usage: chat.py [MESSAGE]"""

import sys

from cyllama import LLM

message = sys.argv[1] if len(sys.argv) > 1 else "What is the capital of France? Answer with one word."
with (
    LLM("smollm2-135m-instruct", n_ctx=1024) as llm,
    llm.chat(message, stream=True, max_tokens=64, temperature=0) as stream,
):
    for chunk in stream:
        print(chunk.text, end="", flush=True)
print()
