"""Bugs reported for similar packages: one test for each report."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import time
from pathlib import Path

import pytest
from language.conftest import CHAT_MODEL

from cyllama import LLM, models
from cyllama.errors import ContextFullError, GrammarError, ModelLoadError
from cyllama.llama import LlamaModel, LlamaModelParams

FACT = "What is the capital of France? Answer with one word."
TINY = "tiny-random-llama"


def test_rejects_prompt_longer_than_context() -> None:
    with LLM(TINY, n_ctx=64) as llm:
        with pytest.raises(ContextFullError, match="context size"):
            llm.complete("word " * 500)
        assert llm.complete("word", max_tokens=2, ignore_eos=True).usage.completion_tokens == 2


def test_accepts_prompt_longer_than_batch() -> None:
    with LLM(TINY, n_ctx=512, n_batch=64, n_ubatch=32) as llm:
        assert llm.complete("word " * 300, max_tokens=2, ignore_eos=True).usage.prompt_tokens > 300


def test_repeated_call_returns_the_same(llm: LLM) -> None:
    first, second = (llm.complete("Once upon a time", temperature=0, max_tokens=8).text for _ in range(2))
    assert first == second


def test_grammar_error_reports_position(llm: LLM) -> None:
    with pytest.raises(GrammarError, match="line 1"):
        llm.complete("x", grammar="root ::= (((", max_tokens=4)
    with pytest.raises(GrammarError, match="'missing'"):
        llm.complete("x", grammar="root ::= missing", max_tokens=4)


def test_unread_stream_frees_its_slot(llm: LLM) -> None:
    for _ in range(8):  # more than there are slots
        stream = llm.complete("Once", max_tokens=2000, ignore_eos=True, stream=True)
        del stream
    assert "Paris" in llm.chat(FACT, temperature=0, max_tokens=8).text


def test_chat_prompt_has_one_bos(llm: LLM) -> None:
    """The prompt has the tokens of the rendered template, with one BOS at its start."""
    messages = [{"role": "user", "content": FACT}]
    ids = llm.tokenize(llm.render(messages), add_special=True, parse_special=True)
    assert llm.count_tokens(messages) == len(ids)
    with LlamaModel(models.get(CHAT_MODEL), LlamaModelParams(vocab_only=True)) as model:
        assert ids.count(model.vocab.bos) <= 4  # <|im_start|> is also the BOS: one for each turn
        assert ids[:2].count(model.vocab.bos) == 1


def test_rejects_unknown_names(llm: LLM) -> None:
    with pytest.raises(TypeError, match="n_gpu_layer.*n_gpu_layers"):
        LLM(CHAT_MODEL, n_gpu_layer=-1)
    with pytest.raises(TypeError, match="temprature.*temperature"):
        llm.chat(FACT, temprature=0.1)


def test_accepts_seed_zero(llm: LLM) -> None:
    one, two = (llm.complete("The", seed=0, temperature=1.5, max_tokens=12, cache_prompt=False).text for _ in range(2))
    assert one == two


def test_requests_share_no_state(llm: LLM) -> None:
    plain = llm.complete("The sky is", temperature=0, max_tokens=6).text
    llm.complete("The sky is", temperature=2.0, stop=["a"], max_tokens=6, logit_bias=[[284, -100.0]], seed=3)
    assert llm.complete("The sky is", temperature=0, max_tokens=6).text == plain


def test_penalties_include_the_prompt(llm: LLM) -> None:
    prompt = "blue blue blue blue blue blue"
    plain = llm.complete(prompt, temperature=0, max_tokens=4, cache_prompt=False).text
    assert "blue" in plain
    assert (
        "blue" not in llm.complete(prompt, temperature=0, max_tokens=4, presence_penalty=5.0, cache_prompt=False).text
    )


def test_invalid_tool_call_stays_text(tool_llm: LLM) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    response = tool_llm.chat(FACT, tools=[tool], tool_choice="auto", temperature=0, max_tokens=20)
    assert response.text and not response.tool_calls and response.finish_reason in ("stop", "length")
    forced = tool_llm.chat(FACT, tools=[tool], tool_choice="f", temperature=0, max_tokens=60)
    assert forced.finish_reason == "tool_calls" and forced.tool_calls[0].function.name == "f"
    cut = tool_llm.chat(FACT, tools=[tool], tool_choice="required", temperature=0, max_tokens=3)
    assert cut.finish_reason == "length"


def test_stream_names_each_tool_once(tool_llm: LLM) -> None:
    parameters = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"]}
    tool = {"type": "function", "function": {"name": "weather", "parameters": parameters}}
    names, ids, arguments = [], [], ""
    for part in tool_llm.chat(FACT, tools=[tool], tool_choice="required", temperature=0, max_tokens=60, stream=True):
        for call in (part.choices[0].delta.get("tool_calls") if part.choices else None) or ():
            names += [call.function["name"]] if "name" in call.function else []
            ids += [call["id"]] if "id" in call else []
            arguments += call.function.get("arguments") or ""
    assert (
        names == ["weather"]
        and len(ids) == 1
        and arguments in ('{"city":"Paris"}', '{"city": "Paris"}', '{"city":"Rome"}', '{"city": "Rome"}')
    )


def test_keeps_output_of_other_threads(capfd: pytest.CaptureFixture[str]) -> None:
    """Loading touches neither stdout nor stderr, also while others write."""
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            os.write(1, b"x")
            time.sleep(0.001)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        LLM(TINY, n_ctx=128).close()
    finally:
        stop.set()
        thread.join()
    out, err = capfd.readouterr()
    assert set(out) == {"x"} and err == ""


def test_releases_the_gil(tmp_path: Path) -> None:
    """Other threads run while a model is loaded, computes, and its state is written and read."""
    beats: list[float] = []
    stop = threading.Event()

    def beat() -> None:
        while not stop.is_set():
            beats.append(time.perf_counter())
            time.sleep(0.001)

    thread = threading.Thread(target=beat)
    thread.start()
    with LLM(CHAT_MODEL, n_ctx=1024, n_parallel=1) as llm:
        llm.complete("word " * 500, max_tokens=1)
        for _ in range(3):  # 23 MB each
            llm.save_state(tmp_path / "state")
            llm.load_state(tmp_path / "state")
    stop.set()
    thread.join()
    took = beats[-1] - beats[0]
    assert max(b - a for a, b in itertools.pairwise(beats)) < max(0.1, took / 4)


def test_opens_a_file_several_times() -> None:
    with LLM(TINY, n_ctx=128) as one, LLM(TINY, n_ctx=128) as two:
        assert (
            one.complete("a", temperature=0, max_tokens=4).text == two.complete("a", temperature=0, max_tokens=4).text
        )


def test_rejects_files_without_a_model(tmp_path: Path) -> None:
    for name, data in (
        ("empty.gguf", b""),
        ("text.gguf", b"not a model"),
        ("cut.gguf", models.get(TINY).read_bytes()[:100_000]),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ModelLoadError, match=name):
            LLM(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        LLM(tmp_path / "nothing.gguf")


def test_works_in_two_event_loops(llm: LLM) -> None:
    """No object is bound to the first loop."""
    for _ in range(2):
        assert "Paris" in asyncio.run(llm.achat(FACT, temperature=0, max_tokens=8)).text


def test_rejects_or_replaces_invalid_unicode(llm: LLM) -> None:
    with pytest.raises((ValueError, UnicodeEncodeError)):
        llm.complete("\ud800", max_tokens=2)
    with pytest.raises(TypeError):
        llm.complete(b"bytes", max_tokens=2)  # type: ignore[arg-type]
    with pytest.raises((TypeError, ValueError)):
        llm.complete([1, 2.5], max_tokens=2)  # type: ignore[list-item]
    with pytest.raises((ValueError, IndexError)):
        llm.complete([10**7], max_tokens=2)
    with pytest.raises((ValueError, IndexError)):
        llm.complete([10**7, "x"], max_tokens=2)  # type: ignore[list-item]
    assert "Paris" in llm.chat(FACT, temperature=0, max_tokens=8).text
