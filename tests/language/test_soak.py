"""Many requests from many threads: each gets its own response, and memory does not grow."""

from __future__ import annotations

import gc
import json
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cyllama import LLM
from cyllama.errors import CancelledError

THREADS, WARM_UP, REQUESTS = 16, 200, 800
GROWTH = 3 * 2**20
TINY = "tiny-random-llama"


def memory() -> int:
    """Bytes of this process that are not shared with files."""
    gc.collect()
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon")


def request(llm: LLM, chance: random.Random, number: int) -> None:
    """Send a request whose response contains its number."""
    kind = chance.choice(["grammar", "stream", "chat", "json", "tokens", "cancel", "drop", "wrong"])
    word = f"w{number}x"
    if kind == "grammar":
        assert llm.complete("Say it.", grammar=f'root ::= "{word}"', max_tokens=16).text == word
    elif kind == "stream":
        parts = llm.complete("Say it.", grammar=f'root ::= "{word}"', max_tokens=16, stream=True)
        assert "".join(part.text for part in parts) == word
    elif kind == "chat":
        response = llm.chat("Say it.", grammar=f'root ::= "{word}"', max_tokens=16)
        assert response.text == word and response.finish_reason == "stop"
    elif kind == "json":
        schema = {"type": "object", "properties": {"word": {"const": word}}, "required": ["word"]}
        assert json.loads(llm.chat("Say it.", response_format=schema, max_tokens=64).text) == {"word": word}
    elif kind == "tokens":
        assert llm.detokenize(llm.tokenize(word)).strip() == word
    elif kind == "cancel":
        stop = threading.Event()
        stop.set()
        with pytest.raises(CancelledError):
            llm.complete("x", max_tokens=500, ignore_eos=True, cancel=stop)
    elif kind == "drop":
        next(llm.complete("x", max_tokens=500, ignore_eos=True, stream=True))
    else:
        with pytest.raises(ValueError):
            llm.complete("x", max_tokens=-5)


def soak(llm: LLM, first: int, count: int) -> None:
    failures: list[BaseException] = []

    def work(thread: int) -> None:
        chance = random.Random(first + thread)
        try:
            for number in range(first + thread, first + count, THREADS):
                request(llm, chance, number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def grown() -> int:
    """Bytes by which the process has grown."""
    with LLM(TINY, n_ctx=4096, n_parallel=4, options={"cache-ram": 0}) as llm:
        soak(llm, 0, WARM_UP)  # until caches and arenas are full
        before = memory()
        soak(llm, WARM_UP, REQUESTS)
        return memory() - before


def test_many_requests_from_many_threads() -> None:
    """In a process of its own: the memory of other tests varies."""
    found = subprocess.run([sys.executable, "-W", "error", __file__], capture_output=True, text=True, timeout=600)
    assert found.returncode == 0, found.stderr
    assert int(found.stdout) < GROWTH


if __name__ == "__main__":
    print(grown())
