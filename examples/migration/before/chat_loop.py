"""Chat with a model on the terminal until the end of the input. usage: chat_loop.py MODEL"""

import sys

import ollama

options = {"temperature": 0, "num_predict": 32}
messages = [{"role": "system", "content": "You are a helpful assistant."}]
for line in sys.stdin:
    messages.append({"role": "user", "content": line.strip()})
    text = ""
    for part in ollama.chat(model=sys.argv[1], messages=messages, options=options, stream=True):
        print(part.message.content, end="", flush=True)
        text += part.message.content
    print()
    messages.append({"role": "assistant", "content": text})
