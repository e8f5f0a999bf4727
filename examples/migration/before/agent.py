"""Answer a question with the help of functions. usage: agent.py MODEL"""

import json
import sys

from openai import OpenAI


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


FUNCTIONS = {"add": add}
NUMBERS = {"a": {"type": "integer"}, "b": {"type": "integer"}}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Add two numbers.",
            "parameters": {"type": "object", "properties": NUMBERS, "required": ["a", "b"]},
        },
    }
]

client = OpenAI()
messages = [{"role": "user", "content": "What is 2 + 3?"}]
for choice in ("required", "auto", "none"):
    response = client.chat.completions.create(
        model=sys.argv[1], messages=messages, tools=TOOLS, tool_choice=choice, temperature=0, max_tokens=64
    )
    message = response.choices[0].message
    messages.append(message)
    for call in message.tool_calls or ():
        arguments = json.loads(call.function.arguments)
        result = FUNCTIONS[call.function.name](**arguments)
        print(f"{call.function.name}({arguments}) = {result}")
        messages.append({"role": "tool", "tool_call_id": call.id, "content": str(result)})
    if not message.tool_calls:
        break
print("answer:", message.content)
