"""Speculative decoding: draft repeated tokens from the text itself. The text stays the same."""

from cyllama import LLM

PROMPT = "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday, " * 4

for draft_model in (None, "ngram"):
    with LLM("smollm2-135m-instruct", n_ctx=1024, draft_model=draft_model) as llm:
        completion = llm.complete(PROMPT, max_tokens=48, temperature=0)
        timings = completion.timings
        drafted, accepted = timings.get("draft_n") or 0, timings.get("draft_n_accepted") or 0
        print(f"{draft_model or 'no draft'}: {drafted} tokens drafted, {accepted} accepted: {completion.text[:20]!r}")
