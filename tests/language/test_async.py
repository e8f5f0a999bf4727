"""The async variants: one for every call, cancelled with their tasks, tools in the event loop."""

from __future__ import annotations

import asyncio
import inspect
import threading
from pathlib import Path

import numpy as np
import pytest
from language.conftest import CHAT_MODEL

from cyllama import LLM
from cyllama.errors import ClosedError
from cyllama.llama._async import run_in_thread

# Short methods, and those that call no model.
WITHOUT = {"supports", "request", "request_json"}
FACT = "What is the capital of France? Answer with one word."


def test_every_call_has_an_async_variant() -> None:
    calls = {name for name, member in inspect.getmembers(LLM, inspect.isfunction) if name[0] not in "a_"}
    assert {"complete", "chat", "embed", "save_state", "set_loras", "close"} <= calls
    missing = {name for name in calls - WITHOUT if not inspect.iscoroutinefunction(getattr(LLM, f"a{name}", None))}
    assert not missing


def test_async_calls_return_the_same(tmp_path: Path) -> None:
    async def talk() -> None:
        async with LLM(CHAT_MODEL, n_ctx=512, n_parallel=1) as llm:
            tokens = await llm.atokenize("Hello, world")
            assert tokens == llm.tokenize("Hello, world") and await llm.adetokenize(tokens) == "Hello, world"
            assert await llm.arender(FACT) == llm.render(FACT)
            assert await llm.acount_tokens(FACT) == llm.count_tokens(FACT)
            first = await llm.acomplete("Once upon a time", temperature=0, max_tokens=8)
            await llm.asave_state(tmp_path / "a.state")
            await llm.acomplete("Something else", max_tokens=2)
            await llm.aload_state(tmp_path / "a.state")
            again = await llm.acomplete("Once upon a time", temperature=0, max_tokens=8)
            assert again.text == first.text and again.timings.prompt_n <= 2
            with pytest.raises(ValueError, match="was not loaded"):
                await llm.aset_loras({"x.gguf": 1.0})
        with pytest.raises(ClosedError):
            await llm.achat(FACT)

    asyncio.run(talk())


def test_async_embeddings() -> None:
    async def both() -> None:
        async with LLM("minilm-l6", embedding=True) as llm:
            one, two = await asyncio.gather(llm.aembed("a"), llm.aembed("b", normalize=False))
            np.testing.assert_allclose(one, llm.embed("a"), atol=1e-4)
            np.testing.assert_allclose(two, llm.embed("b", normalize=False), atol=1e-3)

    asyncio.run(both())


def test_waits_for_the_call_of_a_task_cancelled_twice() -> None:
    """The task ends after its thread, and the result of the call is closed."""
    made = []

    class Made:
        def close(self) -> None:
            made.append("closed")

    begun, end = threading.Event(), threading.Event()

    def call(cancel: threading.Event) -> Made:
        begun.set()
        end.wait(10)
        assert cancel.is_set()
        return Made()

    async def again() -> None:
        task = asyncio.create_task(run_in_thread(call))
        await asyncio.to_thread(begun.wait, 10)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0.01)
            assert not task.done()
        end.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(again())
    assert made == ["closed"]
