"""Save the state of a long prompt, and restore it in another instance without computing the prompt again."""

import time

from cyllama import LLM

STORY = "Once upon a time there was a small town by the sea. " * 40

for run in ("first", "second"):
    with LLM("smollm2-135m-instruct", n_ctx=2048, n_parallel=1) as llm:
        if run == "second":
            llm.load_state("story.state")
        start = time.perf_counter()
        completion = llm.complete(STORY + "Every morning", max_tokens=8, temperature=0)
        print(f"{run}: {completion.timings.prompt_n} prompt tokens computed, {time.perf_counter() - start:.2f} s")
        llm.save_state("story.state")
