"""Cancelling wherever it may happen, again and again: the call ends, and the next request is right."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from language.conftest import CHAT_MODEL

from cyllama import LLM
from cyllama.errors import CancelledError, ClosedError, InUseError

TIMES = 10  # benchmarks/cancelling.py does it a hundred times each, with a clock
LONG = "The quick brown fox jumps over the lazy dog. " * 600  # 6,000 tokens
FACT = "What is the capital of France? Answer with one word."


@pytest.fixture(scope="module")
def model() -> Iterator[LLM]:
    with LLM(CHAT_MODEL, n_ctx=8192, n_parallel=2) as llm:
        yield llm


def right(llm: LLM) -> None:
    assert "Paris" in llm.chat(FACT, temperature=0, max_tokens=8).text


def later(call: Callable[[], None], seconds: float) -> threading.Timer:
    timer = threading.Timer(seconds, call)
    timer.start()
    return timer


def test_while_loading() -> None:
    for i in range(TIMES):
        stop = threading.Event()
        timer = later(stop.set, 0.005 * i)
        try:
            with LLM(CHAT_MODEL, n_ctx=256, cancel=stop) as llm:
                right(llm)
        except CancelledError:
            pass
        timer.join()
    seen: list[float] = []
    with pytest.raises(CancelledError):
        LLM(CHAT_MODEL, n_ctx=256, on_progress=lambda part: seen.append(part) or part < 0.3)
    assert seen and seen[-1] >= 0.3


def test_beside_a_talkative_neighbour(model: LLM) -> None:
    """Results of others, which come all the time, do not put off that the cancelling is seen."""
    with model.complete("Once", max_tokens=4000, ignore_eos=True, stream=True) as neighbour:
        talking = threading.Thread(target=lambda: [None for _ in neighbour])
        talking.start()
        for _ in range(3):
            stop = threading.Event()
            timer = later(stop.set, 0.2)
            with pytest.raises(CancelledError):
                model.complete("Twice", max_tokens=400, ignore_eos=True, cancel=stop)
            timer.join()
        assert talking.is_alive()
        neighbour.close()
        talking.join()
    right(model)


def test_in_a_long_prompt(model: LLM) -> None:
    for i in range(TIMES):
        stop = threading.Event()
        timer = later(stop.set, 0.05 + 0.02 * i)
        with pytest.raises(CancelledError):
            model.complete(LONG, max_tokens=4, cancel=stop, cache_prompt=False)
        timer.join()
        right(model)


def test_while_generating(model: LLM) -> None:
    for i in range(TIMES):
        stop = threading.Event()
        timer = later(stop.set, 0.05 + 0.02 * i)
        with pytest.raises(CancelledError):
            model.complete("A story.", max_tokens=4000, ignore_eos=True, cancel=stop)
        timer.join()
        right(model)


def test_tasks(model: LLM) -> None:
    async def again() -> None:
        for prompt in (LONG, "A story."):
            for i in range(TIMES):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(
                        model.acomplete(prompt, max_tokens=4000, ignore_eos=True, cache_prompt=False), 0.05 + 0.02 * i
                    )
                assert "Paris" in (await model.achat(FACT, temperature=0, max_tokens=8)).text

    asyncio.run(again())


def test_iterators_that_are_left(model: LLM) -> None:
    for _ in range(TIMES):
        for part in model.complete("A story.", max_tokens=4000, ignore_eos=True, stream=True):
            assert part is not None
            break
        gc.collect()
        right(model)


def test_async_iterators_that_are_left(model: LLM) -> None:
    async def again() -> None:
        for _ in range(TIMES):
            async with await model.acomplete("A story.", max_tokens=4000, ignore_eos=True, stream=True) as stream:
                async for part in stream:
                    assert part is not None
                    break
            assert "Paris" in (await model.achat(FACT, temperature=0, max_tokens=8)).text

    asyncio.run(again())


@pytest.mark.parametrize("prompt", [LONG, "A story."], ids=["long prompt", "generation"])
def test_ctrl_c(model: LLM, prompt: str) -> None:
    for i in range(TIMES):
        timer = later(lambda: signal.raise_signal(signal.SIGINT), 0.05 + 0.02 * i)
        with pytest.raises(KeyboardInterrupt):
            model.complete(prompt, max_tokens=4000, ignore_eos=True, cache_prompt=False)
        timer.join()
        right(model)


def test_a_stream_that_another_thread_closes(model: LLM) -> None:
    """It ends for its reader, who may be waiting for the first part of a long prompt."""
    for prompt in (LONG, "A story."):
        for i in range(TIMES):
            stream = model.complete(prompt, max_tokens=4000, ignore_eos=True, stream=True, cache_prompt=False)
            timer = later(stream.close, 0.05 + 0.02 * i)
            assert all(part is not None for part in stream)
            timer.join()
            stream.close()
        right(model)


def test_a_stream_has_one_reader(model: LLM) -> None:
    """A second one is told so, and the first reads on."""
    stream = model.complete("A story.", max_tokens=200, ignore_eos=True, stream=True)
    refused: list[BaseException] = []

    def read() -> None:
        try:
            while not refused and stream.next() is not None:
                pass
        except InUseError as error:
            refused.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 1
    *_, last = stream
    assert last.finish_reason == "length"
    right(model)


def test_one_of_many(model: LLM) -> None:
    """Those beside a request that is cancelled go on."""
    answers: list[str] = []
    stop = threading.Event()

    def ask() -> None:
        answers.append(model.chat(FACT, temperature=0, max_tokens=8).text)

    def give_up() -> None:
        with pytest.raises(CancelledError):
            model.complete(LONG, max_tokens=4000, cancel=stop)

    threads = [threading.Thread(target=give_up), *(threading.Thread(target=ask) for _ in range(4))]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    stop.set()
    for thread in threads:
        thread.join()
    assert len(answers) == 4 and all("Paris" in answer for answer in answers)


def test_closing_while_others_wait() -> None:
    """`close` ends what is running; nobody waits for ever, nothing is answered wrongly."""
    ends: list[BaseException | str] = []
    llm = LLM(CHAT_MODEL, n_ctx=1024, n_parallel=2)

    def ask() -> None:
        try:
            ends.append(llm.complete("A story.", max_tokens=900, ignore_eos=True).finish_reason)
        except ClosedError as error:
            ends.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    llm.close()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert len(ends) == 4 and any(isinstance(end, ClosedError) for end in ends)
    with pytest.raises(ClosedError):
        llm.complete("A story.")


def test_a_model_that_is_closed_at_once() -> None:
    for _ in range(TIMES):
        LLM("tiny-random-llama", n_ctx=128).close()
