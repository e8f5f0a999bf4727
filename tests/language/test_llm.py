"""`LLM` with a real model: text, chats, streams, tokens, threads, cancelling, errors."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from language.conftest import CHAT_MODEL

from cyllama.errors import CancelledError, ClosedError, ContextFullError, GrammarError, UnsupportedError
from cyllama.llama.llm import LLM

QUESTION = "What is the capital of France? Answer with one word."


def test_chat(llm: LLM) -> None:
    found = llm.chat(QUESTION, temperature=0, max_tokens=16)
    assert "Paris" in found.text and found.finish_reason == "stop"
    assert found.usage.prompt_tokens == llm.count_tokens(QUESTION)
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens
    assert found.timings.predicted_n == found.usage.completion_tokens


def test_stream_returns_the_same_text(llm: LLM) -> None:
    whole = llm.chat("Count to ten.", temperature=0, max_tokens=30)
    parts = list(llm.chat("Count to ten.", temperature=0, max_tokens=30, stream=True))
    assert "".join(part.text for part in parts) == whole.text
    assert parts[-1].choices == [] or parts[-1].choices[0].finish_reason == whole.finish_reason


def test_complete(llm: LLM) -> None:
    found = llm.complete("Once upon a time", temperature=0, max_tokens=8)
    assert found.usage.completion_tokens == 8 and found.finish_reason == "length"
    tokens = llm.tokenize("Once upon a time")
    assert llm.complete(tokens, temperature=0, max_tokens=8).text == found.text
    assert (
        "".join(p.text for p in llm.complete("Once upon a time", temperature=0, max_tokens=8, stream=True))
        == found.text
    )


def test_seed_determines_the_text(llm: LLM) -> None:
    first, again, other = (
        llm.complete("The", temperature=1.0, max_tokens=12, seed=seed, cache_prompt=False).text for seed in (1, 1, 2)
    )
    assert first == again != other


def test_returns_several_choices(llm: LLM) -> None:
    found = llm.chat("Say a word.", n=3, temperature=1.5, seed=3, max_tokens=8)
    assert len(found.choices) == 3


def test_stops_at_stop_texts(llm: LLM) -> None:
    found = llm.complete("one two three four", temperature=0, max_tokens=40, stop=["six"])
    assert "six" not in found.text


def test_grammar(llm: LLM) -> None:
    found = llm.chat("Is water wet?", grammar='root ::= "yes" | "no"', max_tokens=8)
    assert found.text in ("yes", "no")
    with pytest.raises(GrammarError):
        llm.chat("x", grammar="root ::= (", max_tokens=2)


def test_parses_the_response_format(llm: LLM) -> None:
    schema = {"type": "object", "properties": {"name": {"enum": ["a", "b"]}}, "required": ["name"]}
    found = llm.chat("Give a name.", response_format=schema, max_tokens=40, temperature=0)
    assert found.parsed["name"] in ("a", "b")


def test_tokenizes_and_renders(llm: LLM) -> None:
    assert llm.detokenize(llm.tokenize("Hello, world")) == "Hello, world"
    prompt = llm.render([{"role": "system", "content": "S"}, {"role": "user", "content": "U"}])
    assert prompt.count("<|im_start|>") == 3 and prompt.endswith("assistant\n")


def test_reports_supported_features(llm: LLM, tool_llm: LLM) -> None:
    assert llm.supports("system_role") and not llm.supports("tools") and tool_llm.supports("tools")
    with pytest.raises(ValueError, match="what is 'magic', expected one of"):
        llm.supports("magic")
    with pytest.raises(UnsupportedError, match="tool calling"):
        llm.chat("x", tools=[{"type": "function", "function": {"name": "f"}}])


def test_rejects_invalid_arguments(llm: LLM) -> None:
    with pytest.raises(TypeError, match="'temperatur'; did you mean 'temperature'"):
        llm.chat("x", temperatur=1)
    with pytest.raises(TypeError, match="temperature is"):
        llm.chat("x", temperature="hot")
    with pytest.raises(ValueError, match="the role 'usr'"):
        llm.chat([{"role": "usr", "content": "x"}])
    with pytest.raises(ValueError, match="empty"):
        llm.chat([])
    with pytest.raises(ContextFullError):
        llm.complete([1] * 5000, max_tokens=1)
    with pytest.raises(UnsupportedError, match="not loaded with embedding=True"):
        llm.embed("x")
    with pytest.raises(UnsupportedError, match="not loaded with reranking=True"):
        llm.rerank("x", ["y"])
    with pytest.raises(TypeError, match="messages is b'hello'"):
        llm.chat(b"hello")
    with pytest.raises(TypeError, match="text is 3, expected a string"):
        llm.tokenize(3)  # type: ignore[arg-type]
    for token in (-1, 10**7):
        with pytest.raises(IndexError, match=rf"tokens\[1\] is {token}, expected 0 to 49151"):
            llm.detokenize([5, token])
    assert "Paris" in llm.chat(QUESTION, temperature=0, max_tokens=16).text  # the next call works


def test_rejects_unknown_options() -> None:
    with pytest.raises(TypeError, match="'n_ctxx'; did you mean 'n_ctx'"):
        LLM(CHAT_MODEL, n_ctxx=1)
    with pytest.raises(TypeError, match="did you mean '--load-mode'"):
        LLM(CHAT_MODEL, options={"load-mod": "mmap"})
    with pytest.raises(UnsupportedError, match="downloads"):
        LLM(CHAT_MODEL, options={"hf-repo": "a/b"})
    with pytest.raises(ValueError, match="print a text and exit"):
        LLM(CHAT_MODEL, options={"help": True})


def test_serves_more_threads_than_slots(llm: LLM) -> None:
    """More requests than slots, from as many threads: each gets its own response."""
    found: dict[int, str] = {}

    def request(i: int) -> None:
        found[i] = llm.complete(f"{i} plus one is", temperature=0, max_tokens=6, cache_prompt=False).text

    alone = {}
    for i in range(8):
        request(i)
        alone[i] = found.pop(i)
    threads = [threading.Thread(target=request, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found.keys() == alone.keys()
    assert sum(found[i] == alone[i] for i in range(8)) >= 6  # a batch rounds differently


def test_cancels_a_request(llm: LLM) -> None:
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    start = time.perf_counter()
    with pytest.raises(CancelledError):
        llm.complete("Tell a long story.", max_tokens=3000, ignore_eos=True, cancel=stop)
    assert time.perf_counter() - start < 10
    assert "Paris" in llm.chat(QUESTION, temperature=0, max_tokens=16).text


def test_dropped_stream_frees_its_slot(llm: LLM) -> None:
    for _ in range(12):  # more than there are slots
        stream = llm.complete("A long story.", max_tokens=3000, ignore_eos=True, stream=True)
        next(stream)
        del stream
    assert "Paris" in llm.chat(QUESTION, temperature=0, max_tokens=16).text


def test_cancels_loading() -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(CancelledError):
        LLM(CHAT_MODEL, cancel=stop)
    with pytest.raises(CancelledError):
        LLM(CHAT_MODEL, on_progress=lambda part: False)
    with pytest.raises(ZeroDivisionError):
        LLM(CHAT_MODEL, on_progress=lambda part: 1 / 0)


def test_closed_model_rejects_calls() -> None:
    model = LLM("tiny-random-llama", n_ctx=256)
    stream = model.complete("a", max_tokens=200, ignore_eos=True, stream=True)
    next(stream)
    assert repr(model) == "<LLM tiny-random-llama>"
    model.close()
    model.close()
    assert repr(model) == "<LLM tiny-random-llama (closed)>"
    with pytest.raises(ClosedError, match="before the response ended"):
        list(stream)
    with pytest.raises(ClosedError):
        model.complete("a")
    with pytest.raises(ClosedError), model:
        pass


# --------------------------------------------------------------------------------------------- asyncio


def test_async_variants_return_the_same(llm: LLM) -> None:
    async def talk() -> tuple[str, str, list[str]]:
        responses = await asyncio.gather(*(llm.achat(QUESTION, temperature=0, max_tokens=16) for _ in range(6)))
        text = (await llm.acomplete("Once upon a time", temperature=0, max_tokens=8)).text
        stream = await llm.acomplete("Once upon a time", temperature=0, max_tokens=8, stream=True)
        parts = [part.text async for part in stream]
        return text, "".join(parts), [response.text for response in responses]

    single, streamed, texts = asyncio.run(talk())
    assert single == streamed and all("Paris" in text for text in texts) and len(texts) == 6


def test_cancelled_task_frees_its_slot(llm: LLM) -> None:
    async def give_up() -> None:
        for _ in range(6):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(llm.acomplete("A story.", max_tokens=3000, ignore_eos=True), 0.2)

    asyncio.run(give_up())
    assert "Paris" in llm.chat(QUESTION, temperature=0, max_tokens=16).text
