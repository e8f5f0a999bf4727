"""Answer a question with a tool, and find the note that is nearest to it. usage: chat_with_tools.py MODEL EMBEDDER"""

import json
import sys

import numpy as np

from cyllama.compat import Llama

STOCK = {"apples": 12, "pears": 3}
NOTES = ["The shop opens at nine.", "Pears are delivered on Friday.", "The roof was repaired in May."]
TOOL = {
    "type": "function",
    "function": {
        "name": "count_stock",
        "description": "Return how many pieces of a fruit are in stock.",
        "parameters": {
            "type": "object",
            "properties": {"fruit": {"type": "string", "enum": list(STOCK)}},
            "required": ["fruit"],
        },
    },
}

llm = Llama(model_path=sys.argv[1], n_ctx=2048, seed=1, verbose=False)
messages = [{"role": "user", "content": "How many pears are in stock?"}]
choice = {"type": "function", "function": {"name": "count_stock"}}
response = llm.create_chat_completion(messages=messages, tools=[TOOL], tool_choice=choice, temperature=0.0)
call = response["choices"][0]["message"]["tool_calls"][0]
fruit = json.loads(call["function"]["arguments"])["fruit"]
print(f"call: {call['function']['name']}({fruit})")

messages[0]["content"] += f" The stock of {fruit} is {STOCK[fruit]}."
for chunk in llm.create_chat_completion(messages=messages, max_tokens=32, temperature=0.0, stream=True):
    print(chunk["choices"][0]["delta"].get("content", ""), end="", flush=True)
print()

embedder = Llama(model_path=sys.argv[2], embedding=True, verbose=False)
rows = embedder.create_embedding(["When do pears arrive?", *NOTES])["data"]
vectors = np.array([row["embedding"] for row in rows])
vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
print("note:", NOTES[int(np.argmax(vectors[1:] @ vectors[0]))])
