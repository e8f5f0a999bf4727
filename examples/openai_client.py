"""Send a request to `cyllama serve` with the official client (pip install openai). usage: openai_client.py [URL]"""

import sys

from openai import OpenAI

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
with OpenAI(base_url=f"{url}/v1", api_key="none") as client:
    (model, *_) = client.models.list()
    messages = [{"role": "user", "content": "What is the capital of France? Answer with one word."}]
    with client.chat.completions.create(model=model.id, messages=messages, temperature=0, stream=True) as stream:
        for chunk in stream:
            print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
