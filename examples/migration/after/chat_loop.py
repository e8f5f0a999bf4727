"""Chat with a model on the terminal until the end of the input. usage: chat_loop.py MODEL"""

import sys

from cyllama import LLM

llm = LLM(sys.argv[1])
messages = [{"role": "system", "content": "You are a helpful assistant."}]
for line in sys.stdin:
    messages.append({"role": "user", "content": line.strip()})
    text = ""
    for part in llm.chat(messages, temperature=0, max_tokens=32, stream=True):
        print(part.text, end="", flush=True)
        text += part.text
    print()
    messages.append({"role": "assistant", "content": text})
