"""One long streamed response of one of several packages; prints tokens per second as JSON.

usage: python stream_once.py PACKAGE MODEL [--depth N] [--tokens N] [--threads N] [--whole]

Runs in the Python that has the package: cyllama, llama-cpp-python, xllamacpp, or the wheels cyllama-0.7 or inferna-0.7.
The prompt has about `depth` tokens, which are not measured. With --whole cyllama gives the answer at once, and its
timings count.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from typing import Any

SENTENCE = "The quick brown fox jumps over the lazy dog. "  # ten tokens


def ours(options: argparse.Namespace, prompt: str, n_ctx: int) -> Iterator[Any]:
    """`cyllama.LLM`."""
    from cyllama import LLM

    llm, n = LLM(options.model, n_ctx=n_ctx, n_parallel=1, n_threads=options.threads), options.tokens + 1
    with llm, llm.complete(prompt, max_tokens=n, ignore_eos=True, temperature=0, stream=True) as stream:
        yield from stream


def at_once(options: argparse.Namespace, prompt: str, n_ctx: int) -> float:
    """Return tokens per second of `cyllama.LLM` without streaming."""
    from cyllama import LLM

    with LLM(options.model, n_ctx=n_ctx, n_parallel=1, n_threads=options.threads) as llm:
        answer = llm.complete(prompt, max_tokens=options.tokens + 1, ignore_eos=True, temperature=0)
        timings = answer.timings  # they start at the first token
        return float(1000 * (timings.predicted_n - 1) / timings.predicted_ms)


def llama_cpp_python(options: argparse.Namespace, prompt: str, n_ctx: int) -> Iterator[Any]:
    """llama-cpp-python's `Llama`."""
    from llama_cpp import Llama

    n = options.threads
    llm = Llama(options.model, n_ctx=n_ctx, n_threads=n, n_threads_batch=n, verbose=False)
    no_end = {llm.token_eos(): -100.0}
    yield from llm(prompt, max_tokens=options.tokens + 1, temperature=0, stream=True, logit_bias=no_end)


def cyllama_07(options: argparse.Namespace, prompt: str, n_ctx: int) -> Iterator[Any]:
    """`LLM` of the wheels called cyllama 0.7.0 and inferna 0.7.0."""
    import importlib
    import inspect

    package = importlib.import_module(options.package.split("-")[0])
    settings: dict[str, Any] = {"n_ctx": n_ctx, "n_threads": options.threads, "n_threads_batch": options.threads}
    known = inspect.signature(package.GenerationConfig).parameters  # one of the two has no n_threads
    settings = {name: value for name, value in settings.items() if name in known}
    llm = package.LLM(options.model, max_tokens=options.tokens + 1, temperature=0.0, **settings)
    yield from llm(prompt, stream=True)


def xllamacpp(options: argparse.Namespace, prompt: str, n_ctx: int) -> Iterator[Any]:
    """xllamacpp's `Server` in the process, which calls a function for each chunk."""
    import queue
    import threading

    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel = options.model, n_ctx, 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options.threads
    server = xllamacpp.Server(params)
    body = {"prompt": prompt, "max_tokens": options.tokens + 1, "temperature": 0, "ignore_eos": True, "stream": True}
    chunks: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def generate() -> None:
        server.handle_completions(body, chunks.put)
        chunks.put(None)

    threading.Thread(target=generate).start()
    yield from iter(chunks.get, None)


PACKAGES = {
    "cyllama": ours,
    "llama-cpp-python": llama_cpp_python,
    "xllamacpp": xllamacpp,
    "cyllama-0.7": cyllama_07,
    "inferna-0.7": cyllama_07,
}


def main() -> None:
    """Count the chunks after the first one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("package", choices=PACKAGES)
    parser.add_argument("model")
    parser.add_argument("--depth", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--whole", action="store_true")
    options = parser.parse_args()
    prompt, n_ctx = SENTENCE * (options.depth // 10), options.depth + options.tokens + 64
    if options.whole:
        print(json.dumps({"tokens per second": at_once(options, prompt, n_ctx)}))
        return
    parts, first = 0, 0.0
    for _ in PACKAGES[options.package](options, prompt, n_ctx):
        if parts == 0:
            first = time.perf_counter()
        parts += 1
        last = time.perf_counter()
        if parts > options.tokens:
            break
    print(json.dumps({"tokens per second": (parts - 1) / (last - first), "parts": parts}))


if __name__ == "__main__":
    main()
