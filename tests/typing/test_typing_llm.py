"""Type checkers reject misspelt options of the text API; the README, the documentation and the examples are clean."""

from __future__ import annotations

import shutil
from pathlib import Path

import gen_request_types
import pytest
from type_checkers import CHECKERS, ROOT, Errors, errors, python_blocks

SETUP = """\
import threading
from collections.abc import Mapping
from typing import Any, assert_type

from cyllama import LLM
from cyllama.compat import Llama
from cyllama.llama import ChatChunk, ChatCompletion, Completion, CompletionChunk, RerankResult, Stream, estimate_memory

llm, llama = LLM("m"), Llama("m")


def weather(city: str) -> str:
    return "sunny"


"""
MISUSES = (
    'LLM("m", n_ctxx=5)',
    'LLM("m", n_ctx="five")',
    'LLM("m", cancel=True)',
    'llm.chat("x", temprature=1)',
    'llm.chat("x", temperature="hot")',
    'llm.chat("x", stream=True).text',
    'llm.chat("x").usgae',
    'llm.chat("x", cancel=5)',
    "llm.chat(5)",
    'llm.complete("x", max_token=5)',
    'llm.complete("x", tools=[])',
    'llm.complete("x").message',
    'llm.infill("a", "b", sufix="c")',
    'llm.embed("x", normalise=True)',
    "llm.embed(5)",
    'llm.rerank("x", ["y"], topn=1)',
    'llm.tokenize("x", special=True)',
    'llm.render("x", add_generation=True)',
    'llm.count_tokens("x", tool=[])',
    'llm.achat("x", temprature=1)',
    'llm.acomplete("x", temprature=1)',
    'llm.aembed("x", normalise=True)',
    'estimate_memory("m", n_ctxx=5)',
    'Llama("m", n_ctxx=5)',
    'llama.create_completion("x", max_token=5)',
    'llama.create_chat_completion([], temprature=1)',
)  # fmt: skip
USES = (
    'assert_type(llm.chat("x"), ChatCompletion)',
    'assert_type(llm.chat("x", stream=False, temperature=0, seed=1, stop=["a"]), ChatCompletion)',
    'assert_type(llm.chat("x", stream=True), Stream[ChatChunk, ChatCompletion])',
    'assert_type(llm.chat("x", stream=True).result(), ChatCompletion)',
    'assert_type(llm.complete([1, 2], max_tokens=5), Completion)',
    'assert_type(llm.complete("x", stream=True), Stream[CompletionChunk, Completion])',
    'assert_type([chunk.text for chunk in llm.chat("x", stream=True)], list[str])',
    'assert_type(llm.chat("x").usage.prompt_tokens, int)',
    'assert_type(llm.chat("x").tool_calls[0].function.name, str)',
    'assert_type(llm.rerank("x", ["y"], top_n=1), list[RerankResult])',
    'llm.chat([{"role": "user", "content": [{"type": "text", "text": "x"}]}], cancel=threading.Event())',
    'llm.chat([{"role": "user", "content": "x"}, llm.chat("x").message], tools=[weather], run_tools=True)',
    'llm.chat("x", images=["a.png", b"data"], audio="a.wav", response_format={"type": "object"})',
    'llm.chat("x", response_format=dict[str, int], tool_choice=weather, logprobs=True, top_logprobs=2)',
    'llm.complete("x", logit_bias={5: -100}, lora={"a.gguf": 0.5}, samplers=["top_k"], grammar=None)',
    'LLM("m", n_ctx=4096, n_gpu_layers="all", flash_attn=True, options={"mlock": True}, cancel=threading.Event())',
    'estimate_memory("m", n_ctx=4096, cache_type_k="q8_0").total.bit_length()',
    'llama.create_completion("x", max_tokens=5)["choices"]',
    '[part["choices"] for part in llama.create_chat_completion([], stream=True)]',
    'Llama("m", n_ctx=512, n_gpu_layers=-1)',
)  # fmt: skip
OTHER_PACKAGES = ("openai_client.py", "serve.md")  # they use the types of the package openai


@pytest.fixture(scope="module", params=CHECKERS)
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Errors:
    """The errors of one run of a checker on all files."""
    folder = tmp_path_factory.mktemp("typed")
    (folder / "misuses.py").write_text(SETUP + "\n".join(MISUSES) + "\n")
    (folder / "uses.py").write_text(SETUP + "\n".join(USES) + "\n")
    for document in (ROOT / "README.md", *(ROOT / "docs" / "howto").glob("*.md")):
        if document.name not in OTHER_PACKAGES:
            (folder / f"doc_{document.stem.replace('-', '_')}.py").write_text(python_blocks(document))
    for example in (ROOT / "examples").glob("*.py"):
        if example.name not in OTHER_PACKAGES:
            shutil.copy(example, folder / f"example_{example.name}")
    return errors(request.param, folder)


def test_misuses_are_errors(found: Errors) -> None:
    first = SETUP.count("\n") + 1
    accepted = [text for line, text in enumerate(MISUSES, first) if line not in found["misuses.py"]]
    assert accepted == [] and min(found["misuses.py"]) >= first


def test_uses_are_not(found: Errors) -> None:
    lines = (SETUP + "\n".join(USES)).splitlines()
    assert {lines[line - 1]: message for line, message in found["uses.py"].items()} == {}


def test_documents_and_examples_are_clean(found: Errors) -> None:
    shown = {name: lines for name, lines in found.items() if name.startswith(("doc_", "example_")) and lines}
    assert shown == {} and len(found) > 30


def test_request_types_are_up_to_date(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gen_request_types.main(["--check"]) == 0
    for name in gen_request_types.GENERATED:
        stale = tmp_path / name
        stale.parent.mkdir()
        stale.write_text((gen_request_types.PACKAGE / name).read_text().replace("n_ctx: int", "n_ctx: float"))
    capsys.readouterr()
    assert gen_request_types.main(["--check", "--package", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert all(name in shown for name in gen_request_types.GENERATED)
