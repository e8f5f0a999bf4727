"""Estimate the memory of a model without loading it. usage: estimate_memory.py [MODEL]"""

import sys

from cyllama.llama import estimate_memory

model = sys.argv[1] if len(sys.argv) > 1 else "smollm2-135m-instruct"
for n_ctx in (2048, 8192):
    for cache_type in ("f16", "q8_0"):
        estimate = estimate_memory(model, n_ctx=n_ctx, cache_type_k=cache_type, cache_type_v=cache_type)
        print(f"{n_ctx} tokens, cache {cache_type}: {estimate.total / 2**20:.0f} MiB")
