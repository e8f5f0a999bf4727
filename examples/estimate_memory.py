"""Tell what a model would need, without loading it. usage: estimate_memory.py [MODEL]"""

import sys

from cyllama.llama import estimate_memory

model = sys.argv[1] if len(sys.argv) > 1 else "smollm2-135m-instruct"
for n_ctx in (2048, 8192):
    for kind in ("f16", "q8_0"):
        found = estimate_memory(model, n_ctx=n_ctx, cache_type_k=kind, cache_type_v=kind)
        print(f"{n_ctx} tokens, cache {kind}: {found.total / 2**20:.0f} MiB")
