"""One response with drafts of a smaller model; prints tokens per second as JSON.

usage: python -m benchmarks.draft_once MODEL DRAFT [--tokens N] [--threads N]
"""

from __future__ import annotations

import argparse
import json
import time

from cyllama import LLM

PROMPT = "Count from one to fifty in words."


def main() -> None:
    """Measure the second response, without its prompt."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("draft")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    with LLM(chosen.model, draft_model=chosen.draft, n_ctx=1024, n_threads=chosen.threads) as llm:
        fixed = {"ignore_eos": True, "temperature": 0, "seed": 1}
        llm.chat(PROMPT, max_tokens=8, **fixed)
        start = time.perf_counter()
        response = llm.chat(PROMPT, max_tokens=chosen.tokens, **fixed)
        print(json.dumps({"drafted": response.usage.completion_tokens / (time.perf_counter() - start)}))


if __name__ == "__main__":
    main()
