"""Send requests from several threads: they share the model, its slots and the prompt cache."""

from concurrent.futures import ThreadPoolExecutor

from cyllama import LLM

COUNTRIES = ["France", "Italy", "Spain", "Japan"]

with LLM("smollm2-135m-instruct", n_ctx=2048, n_parallel=4) as llm, ThreadPoolExecutor(4) as threads:

    def find_capital(country: str) -> str:
        prompt = f"What is the capital of {country}? Answer with one word."
        return llm.chat(prompt, max_tokens=24, temperature=0).text

    for country, text in zip(COUNTRIES, threads.map(find_capital, COUNTRIES), strict=True):
        print(f"{country}: {text}")
