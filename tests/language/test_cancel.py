"""Cancelling ends any call, and the next request works."""

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

TIMES = 4  # benchmarks/cancelling.py measures a hundred times each
LONG = "The quick brown fox jumps over the lazy dog. " * 600  # 6,000 tokens
FACT = "What is the capital of France? Answer with one word."


@pytest.fixture(scope="module")
def model() -> Iterator[LLM]:
    with LLM(CHAT_MODEL, n_ctx=8192, n_parallel=2) as llm:
        yield llm


def check_works(llm: LLM) -> None:
    assert "Paris" in llm.chat(FACT, temperature=0, max_tokens=8).text


def later(call: Callable[[], None], seconds: float) -> threading.Timer:
    timer = threading.Timer(seconds, call)
    timer.start()
    return timer


def test_cancels_loading() -> None:
    for i in range(TIMES):
        stop = threading.Event()
        timer = later(stop.set, 0.005 * i)
        try:
            with LLM(CHAT_MODEL, n_ctx=256, cancel=stop) as llm:
                check_works(llm)
        except CancelledError:
            pass
        timer.join()
    seen: list[float] = []
    with pytest.raises(CancelledError):
        LLM(CHAT_MODEL, n_ctx=256, on_progress=lambda part: seen.append(part) or part < 0.3)
    assert seen and seen[-1] >= 0.3


def test_cancels_beside_a_busy_slot(model: LLM) -> None:
    """Frequent results of another request do not delay cancelling."""
    with model.complete("Once", max_tokens=4000, ignore_eos=True, stream=True) as neighbour:
        reader = threading.Thread(target=lambda: [None for _ in neighbour])
        reader.start()
        for _ in range(3):
            stop = threading.Event()
            timer = later(stop.set, 0.2)
            with pytest.raises(CancelledError):
                model.complete("Twice", max_tokens=400, ignore_eos=True, cancel=stop)
            timer.join()
        assert reader.is_alive()
        neighbour.close()
        reader.join()
    check_works(model)


def test_cancels_in_a_long_prompt(model: LLM) -> None:
    for i in range(TIMES):
        stop = threading.Event()
        timer = later(stop.set, 0.05 + 0.02 * i)
        with pytest.raises(CancelledError):
            model.complete(LONG, max_tokens=4, cancel=stop, cache_prompt=False)
        timer.join()
        check_works(model)


def test_cancels_while_generating(model: LLM) -> None:
    for i in range(TIMES):
        stop = threading.Event()
        timer = later(stop.set, 0.05 + 0.02 * i)
        with pytest.raises(CancelledError):
            model.complete("A story.", max_tokens=4000, ignore_eos=True, cancel=stop)
        timer.join()
        check_works(model)


def test_cancelled_tasks_free_their_slots(model: LLM) -> None:
    async def again() -> None:
        for prompt in (LONG, "A story."):
            for i in range(TIMES):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(
                        model.acomplete(prompt, max_tokens=4000, ignore_eos=True, cache_prompt=False), 0.05 + 0.02 * i
                    )
                assert "Paris" in (await model.achat(FACT, temperature=0, max_tokens=8)).text

    asyncio.run(again())


def test_dropped_streams_free_their_slots(model: LLM) -> None:
    for _ in range(TIMES):
        for part in model.complete("A story.", max_tokens=4000, ignore_eos=True, stream=True):
            assert part is not None
            break
        gc.collect()
        check_works(model)


def test_dropped_async_streams_free_their_slots(model: LLM) -> None:
    async def again() -> None:
        for _ in range(TIMES):
            async with await model.acomplete("A story.", max_tokens=4000, ignore_eos=True, stream=True) as stream:
                async for part in stream:
                    assert part is not None
                    break
            assert "Paris" in (await model.achat(FACT, temperature=0, max_tokens=8)).text

    asyncio.run(again())


@pytest.mark.parametrize("prompt", [LONG, "A story."], ids=["long prompt", "generation"])
def test_ctrl_c_stops_a_call(model: LLM, prompt: str) -> None:
    for i in range(TIMES):
        timer = later(lambda: signal.raise_signal(signal.SIGINT), 0.05 + 0.02 * i)
        with pytest.raises(KeyboardInterrupt):
            model.complete(prompt, max_tokens=4000, ignore_eos=True, cache_prompt=False)
        timer.join()
        check_works(model)


def test_stream_closed_by_another_thread_ends(model: LLM) -> None:
    """It also ends while its reader waits for the first chunk after a long prompt."""
    for prompt in (LONG, "A story."):
        for i in range(TIMES):
            stream = model.complete(prompt, max_tokens=4000, ignore_eos=True, stream=True, cache_prompt=False)
            timer = later(stream.close, 0.05 + 0.02 * i)
            assert all(part is not None for part in stream)
            timer.join()
            stream.close()
        check_works(model)


def test_stream_rejects_a_second_reader(model: LLM) -> None:
    """The first reader continues."""
    stream = model.complete("A story.", max_tokens=200, ignore_eos=True, stream=True)
    rejected: list[BaseException] = []

    def read() -> None:
        try:
            while not rejected and stream.next() is not None:
                pass
        except InUseError as error:
            rejected.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(rejected) == 1
    *_, last = stream
    assert last.finish_reason == "length"
    check_works(model)


def test_cancels_one_of_many_requests(model: LLM) -> None:
    """The other requests continue."""
    texts: list[str] = []
    stop = threading.Event()

    def request() -> None:
        texts.append(model.chat(FACT, temperature=0, max_tokens=8).text)

    def give_up() -> None:
        with pytest.raises(CancelledError):
            model.complete(LONG, max_tokens=4000, cancel=stop)

    threads = [threading.Thread(target=give_up), *(threading.Thread(target=request) for _ in range(4))]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    stop.set()
    for thread in threads:
        thread.join()
    assert len(texts) == 4 and all("Paris" in text for text in texts)


def test_closing_raises_in_waiting_threads() -> None:
    """`close` stops running and waiting requests."""
    ends: list[BaseException | str] = []
    llm = LLM(CHAT_MODEL, n_ctx=1024, n_parallel=2)

    def request() -> None:
        try:
            ends.append(llm.complete("A story.", max_tokens=900, ignore_eos=True).finish_reason)
        except ClosedError as error:
            ends.append(error)

    threads = [threading.Thread(target=request) for _ in range(4)]
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


def test_closes_right_after_loading() -> None:
    for _ in range(TIMES):
        LLM("tiny-random-llama", n_ctx=128).close()
