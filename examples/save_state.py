"""Keep what a long prompt has computed, and go on in another process without computing it again."""

import time

from cyllama import LLM

STORY = "Once upon a time there was a small town by the sea. " * 40

for turn in ("first", "second"):
    with LLM("smollm2-135m-instruct", n_ctx=2048, n_parallel=1) as llm:
        if turn == "second":
            llm.load_state("story.state")
        start = time.perf_counter()
        done = llm.complete(STORY + "Every morning", max_tokens=8, temperature=0)
        print(f"{turn}: {done.timings.prompt_n} tokens of the prompt computed in {time.perf_counter() - start:.2f} s")
        llm.save_state("story.state")
