"""Perplexity of a model on texts of Python's own help; prints it as JSON.

usage: python -m benchmarks.perplexity_once MODEL [--chunks N]
"""

from __future__ import annotations

import argparse
import json
import pydoc_data.topics

from cyllama.llama import perplexity


def main() -> None:
    """Evaluate one model."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--chunks", type=int, default=100)
    options = parser.parse_args()
    text = "\n".join(pydoc_data.topics.topics.values())
    print(json.dumps({"perplexity": perplexity(options.model, text, max_chunks=options.chunks).value}))


if __name__ == "__main__":
    main()
