"""Answer many questions at once: threads share the model, its slots and what their prompts have in common."""

from concurrent.futures import ThreadPoolExecutor

from cyllama import LLM

COUNTRIES = ["France", "Italy", "Spain", "Japan"]

with LLM("smollm2-135m-instruct", n_ctx=2048, n_parallel=4) as llm, ThreadPoolExecutor(4) as threads:

    def ask(country: str) -> str:
        question = f"What is the capital of {country}? Answer with one word."
        return llm.chat(question, max_tokens=24, temperature=0).text

    for country, answer in zip(COUNTRIES, threads.map(ask, COUNTRIES), strict=True):
        print(f"{country}: {answer}")
