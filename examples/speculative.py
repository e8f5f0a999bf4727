"""Draft tokens from the text itself: what is repeated comes several tokens at a time, and is the same text."""

from cyllama import LLM

PROMPT = "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday, " * 4

for draft_model in (None, "ngram"):
    with LLM("smollm2-135m-instruct", n_ctx=1024, draft_model=draft_model) as llm:
        done = llm.complete(PROMPT, max_tokens=48, temperature=0)
        drafted, right = done.timings.get("draft_n", 0), done.timings.get("draft_n_accepted", 0)
        print(f"{draft_model or 'no draft'}: {drafted} tokens drafted, {right} of them right; text: {done.text[:20]!r}")
