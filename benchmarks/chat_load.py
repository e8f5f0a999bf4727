"""Parallel and sequential chats, through `cyllama.LLM` or a server; prints JSON: tokens per second.

usage: python -m benchmarks.chat_load cyllama|URL MODEL [--chats N] [--tokens N] [--threads N]
"""

from __future__ import annotations

import argparse
import http.client
import json
import time
import urllib.parse
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

TOPICS = ("the sea", "a castle", "old trains", "the moon", "bread", "a garden", "winter", "music")
Ask = Callable[[str, int], int]


def main() -> None:
    """Measure one target."""
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("model")
    parser.add_argument("--chats", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    if options.target == "cyllama":
        from cyllama import LLM

        slots = {"n_parallel": options.chats, "n_ctx": 512 * options.chats, "n_threads": options.threads}
        with LLM(options.model, **slots) as llm:

            def ask(prompt: str, tokens: int) -> int:
                fixed = {"ignore_eos": True, "cache_prompt": False, "temperature": 0.8, "seed": 1}
                return int(llm.chat(prompt, max_tokens=tokens, **fixed).usage.completion_tokens)

            figures = measure(ask, options.chats, options.tokens)
    else:
        figures = measure(over_http(options.target), options.chats, options.tokens)
    print(json.dumps(figures))


def over_http(url: str) -> Ask:
    """Return a function that sends the same request to a server."""
    place = urllib.parse.urlsplit(url)

    def ask(prompt: str, tokens: int) -> int:
        body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": tokens, "ignore_eos": True}
        body |= {"cache_prompt": False, "temperature": 0.8, "seed": 1}
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=600)
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        with connection.getresponse() as answer:
            return int(json.load(answer)["usage"]["completion_tokens"])

    return ask


def measure(ask: Ask, chats: int, tokens: int) -> dict[str, float]:
    """Return tokens per second of all chats, in parallel and in sequence, after a warm-up."""
    prompts = [f"Tell me about {TOPICS[i % len(TOPICS)]}." for i in range(chats)]
    ask(prompts[0], 4)
    with ThreadPoolExecutor(chats) as pool:
        start = time.perf_counter()
        made = sum(pool.map(lambda prompt: ask(prompt, tokens), prompts))
        together = made / (time.perf_counter() - start)
    start = time.perf_counter()
    made = sum(ask(prompt, tokens) for prompt in prompts)
    return {"together": together, "in sequence": made / (time.perf_counter() - start)}


if __name__ == "__main__":
    main()
