"""The programs of llama-cpp-python's documentation run with `cyllama.compat` in place of ``llama_cpp``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.projectors import write_projector
from language.conftest import CHAT_MODEL
from language.media_samples import CIRCLE, MODEL, SQUARE, WIDTH, image_part, text_part, user

from cyllama import compat, models
from cyllama.compat import (
    Llama,
    LlamaDiskCache,
    LlamaGrammar,
    LlamaRAMCache,
    LogitsProcessorList,
)
from cyllama.compat._chat_styles import STYLES
from cyllama.compat.llama_chat_format import Llava15ChatHandler, MTMDChatHandler
from cyllama.errors import UnsupportedError

TINY = "tiny-random-llama"
QUESTION = [{"role": "user", "content": "Extract Jason is 25 years old"}]
PARAMETERS = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "maximum": 99}},
    "required": ["name", "age"],
}
TOOL = {"type": "function", "function": {"name": "UserDetail", "parameters": PARAMETERS}}
FORMATS = [
    "llama-2", "llama-3", "alpaca", "qwen", "vicuna", "oasst_llama", "baichuan-2", "baichuan", "openbuddy",
    "redpajama-incite", "snoozy", "phind", "intel", "open-orca", "mistrallite", "zephyr", "pygmalion", "chatml",
    "mistral-instruct", "chatglm3", "openchat", "saiga", "gemma", "functionary", "functionary-v1", "functionary-v2",
    "chatml-function-calling",
]  # fmt: skip


@pytest.fixture(scope="module")
def llm() -> Iterator[Llama]:
    with Llama(str(models.get(CHAT_MODEL)), n_ctx=2048, seed=7, chat_format="chatml-function-calling") as model:
        yield model


def test_quick_start(llm: Llama) -> None:
    output = llm("Q: Name the planets in the solar system? A: ", max_tokens=32, stop=["Q:", "\n"], echo=True)
    assert output["id"].startswith("cmpl-") and output["object"] == "text_completion"
    assert output["model"] == llm.model_path and isinstance(output["created"], int)
    (choice,) = output["choices"]
    assert set(choice) == {"text", "index", "logprobs", "finish_reason"}
    assert choice["text"].startswith("Q: Name the planets in the solar system? A: ") and choice["logprobs"] is None
    usage = output["usage"]
    assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"]


def test_imports_of_its_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", compat)
    for module, name in (
        ("llama_chat_format", "MoondreamChatHandler"),
        ("llama_speculative", "LlamaPromptLookupDecoding"),
        ("llama_cache", "LlamaCache"),
        ("llama_grammar", "LlamaGrammar"),
        ("llama_tokenizer", "LlamaTokenizer"),
        ("llama", "StoppingCriteriaList"),
    ):
        assert hasattr(__import__(f"cyllama.compat.{module}", fromlist=[name]), name)


# ---------------------------------------------------------------------------------------------- chats


@pytest.mark.parametrize("name", FORMATS)
def test_chat_format_renders_all_messages(name: str) -> None:
    if name.startswith("functionary"):
        with pytest.raises(UnsupportedError, match=name):
            Llama(TINY, chat_format=name)
        return
    chat = [("system", "Be brief."), ("user", "One?"), ("assistant", "Two."), ("user", "Three?")]
    with Llama(TINY, n_ctx=512, chat_format=name) as llama:
        prompt = llama.llm.render([{"role": role, "content": text} for role, text in chat])
        places = [prompt.index(text) for _, text in chat]
        assert places == sorted(places)
        assert prompt.rstrip("\n").endswith(STYLES[name].start.rstrip("\n") or "Three? [/INST]")
        stop = STYLES[name].stop
        if stop is not None:
            grammar = LlamaGrammar.from_string(f"root ::= {json.dumps('yes' + stop + 'more')}")
            made = llama.create_chat_completion([{"role": "user", "content": "x"}], grammar=grammar, max_tokens=60)
            choice = made["choices"][0]
            assert (choice["message"]["content"].strip(), choice["finish_reason"]) == ("yes", "stop")


def test_chat_format_of_the_file() -> None:
    with Llama(TINY, chat_format="llama3", n_ctx=256) as builtin:
        assert "Hello" in builtin.llm.render("Hello")
    with Llama(TINY, chat_format="[{{ messages[0].content }}]", n_ctx=256) as text:
        assert text.llm.render("Hello") == "[Hello]"
    with Llama(CHAT_MODEL, chat_format="chat_template.default", n_ctx=256) as own:
        assert "<|im_start|>user\nHello" in own.llm.render("Hello")
    for name in ("qwenn", "chatmll"):
        with pytest.raises(ValueError, match="did you mean"):
            Llama(TINY, chat_format=name)


def test_streams_role_then_content(llm: Llama) -> None:
    chunks = list(llm.create_chat_completion(QUESTION, max_tokens=6, stream=True))
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant"} and deltas[-1] == {}
    assert all(set(delta) == {"content"} and isinstance(delta["content"], str) for delta in deltas[1:-1])
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert {chunk["model"] for chunk in chunks} == {llm.model_path} and len({chunk["id"] for chunk in chunks}) == 1
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert set(reasons[:-1]) == {None} and reasons[-1] == "length"
    text = ""
    for delta in deltas:  # the loop of its examples
        if "role" in delta:
            assert text == ""
        elif "content" in delta:
            text += delta["content"]
    assert text


def test_json_mode_and_schemas(llm: Llama) -> None:
    given: dict[str, Any] = {"max_tokens": 60, "temperature": 0.7}
    schema = {
        "type": "object",
        "properties": {"team_name": {"type": "string", "maxLength": 9}},
        "required": ["team_name"],
    }
    made = llm.create_chat_completion(QUESTION, response_format={"type": "json_object", "schema": schema}, **given)
    assert set(json.loads(made["choices"][0]["message"]["content"])) == {"team_name"}
    keep = LogitsProcessorList([lambda ids, scores: scores])
    for more in ({}, {"logits_processor": keep}):
        form = {"type": "json_object", "schema": {"enum": [{"a": 1}]}}
        made = llm.create_chat_completion(QUESTION, response_format=form, **given, **more)
        assert json.loads(made["choices"][0]["message"]["content"]) == {"a": 1}


@pytest.mark.parametrize("chat_format", ["chatml-function-calling", "llama-2"])
def test_calls_a_named_function(llm: Llama, chat_format: str) -> None:
    """The second format has no tools: the arguments follow the schema all the same."""
    given: dict[str, Any] = {"max_tokens": 80, "temperature": 0}
    other = None if chat_format == "chatml-function-calling" else Llama(CHAT_MODEL, n_ctx=512, chat_format=chat_format)
    model = other or llm
    for more in (
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "UserDetail"}}},
        {"functions": [TOOL["function"]], "function_call": {"name": "UserDetail"}},
    ):
        choice = model.create_chat_completion(QUESTION, **given, **more)["choices"][0]
        (call,) = choice["message"]["tool_calls"]
        assert choice["finish_reason"] == "tool_calls" and choice["message"]["content"] is None
        assert call["type"] == "function" and call["id"] and call["function"]["name"] == "UserDetail"
        assert set(json.loads(call["function"]["arguments"])) == {"name", "age"}
        assert choice["message"]["function_call"] == call["function"]
        chunks = list(model.create_chat_completion(QUESTION, stream=True, **given, **more))
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
        parts = [delta["tool_calls"][0] for delta in deltas if delta.get("tool_calls")]
        assert deltas[0] == {"role": "assistant"} and chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
        assert {(part["index"], part["function"]["name"]) for part in parts} == {(0, "UserDetail")}
        assert len({part["id"] for part in parts}) == 1
        joined = "".join(part["function"]["arguments"] for part in parts)
        assert json.loads(joined) == json.loads(call["function"]["arguments"])
        assert joined == "".join(delta["function_call"]["arguments"] for delta in deltas if "function_call" in delta)
    if other is not None:
        with pytest.raises(UnsupportedError, match="tool"):
            other.create_chat_completion(QUESTION, tools=[TOOL], max_tokens=2)
        other.close()


def test_accepts_old_calls_in_messages(llm: Llama) -> None:
    messages = [
        *QUESTION,
        {"role": "assistant", "content": None, "function_call": {"name": "UserDetail", "arguments": '{"age": 25}'}},
        {"role": "function", "name": "UserDetail", "content": "stored as number 77"},
    ]
    seen: list[str] = []
    keep = LogitsProcessorList([lambda ids, scores: seen.append(llm.detokenize(ids.tolist()).decode()) or scores])
    llm.create_chat_completion(messages, max_tokens=1, logits_processor=keep)
    assert "UserDetail" in seen[0] and "stored as number 77" in seen[0]


def test_chat_logprobs(llm: Llama) -> None:
    keep = LogitsProcessorList([lambda ids, scores: scores])
    found = []
    for more in ({}, {"logits_processor": keep}):
        given: dict[str, Any] = {"max_tokens": 4, "temperature": 0, "logprobs": True, "top_logprobs": 2} | more
        choice = llm.create_chat_completion(QUESTION, **given)["choices"][0]
        rows = choice["logprobs"]["content"]
        assert "".join(row["token"] for row in rows) == choice["message"]["content"]
        assert all(len(row["top_logprobs"]) == 2 for row in rows) and choice["logprobs"]["refusal"] is None
        streamed = list(llm.create_chat_completion(QUESTION, stream=True, **given))
        logprobs = [chunk["choices"][0]["logprobs"] for chunk in streamed]
        assert len([row for part in logprobs if part for row in part["content"]]) == len(rows)
        found.append(rows[0]["logprob"])
    assert found[0] == pytest.approx(found[1], abs=0.3)
    assert llm.create_chat_completion(QUESTION, max_tokens=1)["choices"][0]["logprobs"] is None


def test_custom_chat_handler() -> None:
    def handler(*, llama: Llama, messages: Any, **given: Any) -> Any:
        text = " ".join(message["content"] for message in messages)
        return llama.create_completion(
            text, max_tokens=given["max_tokens"], temperature=given["temperature"], echo=True
        )

    with Llama(TINY, n_ctx=256, chat_handler=handler) as llama:
        made = llama.create_chat_completion([{"role": "user", "content": "One two"}], max_tokens=3)
        assert made["choices"][0]["text"].startswith("One two") and made["usage"]["completion_tokens"] == 3


def test_multimodal_chat_handlers(tmp_path: Path) -> None:
    projector = write_projector(tmp_path / "projector.gguf", WIDTH)
    with Llama(MODEL, n_ctx=2048, chat_handler=Llava15ChatHandler(clip_model_path=str(projector))) as llama:
        assert llama.llm.render("Hello") == "\nUSER: Hello\nASSISTANT: "
        texts = [
            llama.create_chat_completion(
                [user(image_part(image), text_part("What is it?"))], max_tokens=8, temperature=0, logprobs=True
            )["choices"][0]
            for image in (CIRCLE, SQUARE)
        ]
        assert texts[0]["logprobs"] != texts[1]["logprobs"]
        url = {"type": "image_url", "image_url": {"url": "http://127.0.0.1:9/a.png"}}
        with pytest.raises(ValueError, match="allow_urls"):
            llama.create_chat_completion([user(url)], max_tokens=1)
        with pytest.raises(UnsupportedError, match="set_cache"):
            llama.set_cache(LlamaRAMCache())
    with Llama(MODEL, n_ctx=512, chat_format="llama-3", chat_handler=MTMDChatHandler(projector)) as llama:
        assert "<|start_header_id|>user" in llama.llm.render("Hello")
    with pytest.raises(FileNotFoundError):
        Llama(MODEL, chat_handler=MTMDChatHandler(tmp_path / "none.gguf"))


# --------------------------------------------------------------------------------------------- logprobs


@pytest.mark.parametrize("looped", [False, True])
def test_echo_has_the_logprobs_of_the_prompt(llm: Llama, looped: bool) -> None:
    prompt = "The capital of France is"
    more: dict[str, Any] = {"logits_processor": LogitsProcessorList([lambda ids, scores: scores])} if looped else {}
    given: dict[str, Any] = {"max_tokens": 3, "temperature": 0, "logprobs": 2} | more
    choice = llm(prompt, echo=True, **given)["choices"][0]
    found, tokens = choice["logprobs"], llm.tokenize(prompt.encode(), add_bos=False)
    assert len(found["tokens"]) == len(tokens) + 3 and "".join(found["tokens"]) == choice["text"]
    assert found["token_logprobs"][0] is None and found["top_logprobs"][0] is None
    llm.reset()
    llm.eval(tokens[:2])
    expected = llm.logits_to_logprobs(llm.scores[-1])[tokens[2]]
    assert found["token_logprobs"][2] == pytest.approx(expected, abs=0.02)
    for token, value, tops in zip(
        *(found[name][1:] for name in ("tokens", "token_logprobs", "top_logprobs")), strict=True
    ):
        assert tops[token] == value and 2 <= len(tops) <= 3
    for token, offset in zip(found["tokens"], found["text_offset"], strict=True):
        assert choice["text"][offset : offset + len(token)] == token
    parts = [part["choices"][0] for part in llm(prompt, echo=True, stream=True, **given)]
    assert "".join(part["text"] for part in parts) == choice["text"]
    streamed = [token for part in parts if part["logprobs"] for token in part["logprobs"]["tokens"]]
    assert streamed == found["tokens"]
    alone = llm(prompt, max_tokens=1, temperature=0, logprobs=0, **more)["choices"][0]["logprobs"]
    assert len(alone["top_logprobs"][0]) == 1


def test_logprobs_of_characters_of_several_tokens(llm: Llama) -> None:
    """In the loop; each token has an entry, and the offsets count whole characters."""
    grammar = LlamaGrammar.from_string('root ::= "日本語 END"')
    keep = LogitsProcessorList([lambda ids, scores: scores])
    made = llm("x", grammar=grammar, max_tokens=60, seed=1, logits_processor=keep, logprobs=1)
    found, text = made["choices"][0]["logprobs"], made["choices"][0]["text"]
    assert text == "日本語 END" and len(found["tokens"]) == made["usage"]["completion_tokens"] > 5
    assert found["text_offset"] == sorted(found["text_offset"]) and max(found["text_offset"]) <= len(text)
    one = LlamaGrammar.from_string('root ::= "a"')
    echoed = llm("日本", max_tokens=1, echo=True, logprobs=1, grammar=one)["choices"][0]["logprobs"]
    assert len(echoed["tokens"]) == len(llm.tokenize("日本".encode(), add_bos=False)) + 1


# ------------------------------------------------------------------------------------ states and caches


STORY = "Once upon a time there was a king who had three daughters, and the youngest of them"


def test_saves_the_state_of_a_completion(llm: Llama) -> None:
    first = llm(STORY, max_tokens=8, temperature=0)
    state = llm.save_state()
    assert state.n_tokens >= len(llm.tokenize(STORY.encode())) and state.llama_state_size > 1000
    llm("1 2 3 4 5 6 7 8 9", max_tokens=8)
    llm.load_state(state)
    assert llm(STORY, max_tokens=1)["usage"]["prompt_tokens_details"]["cached_tokens"] > 10
    llm.load_state(state)
    assert llm.input_ids.tolist() == state.input_ids.tolist() and llm.n_tokens == state.n_tokens
    text = llm.detokenize(llm.input_ids.tolist()).decode()
    assert text.startswith(STORY) and first["choices"][0]["text"][:10] in text
    with pytest.raises(TypeError, match="LlamaState"):
        llm.load_state(b"state")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_caches_states(kind: str, tmp_path: Path) -> None:
    cache = LlamaRAMCache() if kind == "memory" else LlamaDiskCache(tmp_path)
    chat = [{"role": "user", "content": STORY}]

    def cached(response: Any) -> int:
        return int(response["usage"]["prompt_tokens_details"]["cached_tokens"])

    for again in (False, True):  # in the second model, the prompts are in the cache alone
        with Llama(TINY, n_ctx=512) as llama:
            llama.set_cache(cache)
            assert (cached(llama(STORY, max_tokens=4)) > 10) == again
            assert (cached(llama.create_chat_completion(chat, max_tokens=4)) > 10) == again
            list(llama("a b c d e f g h i j", max_tokens=4, stream=True))
            llama.set_cache(None)
        if kind == "disk":
            cache = LlamaDiskCache(tmp_path)
    assert cache.cache_size > 0
    with Llama(TINY, vocab_only=True) as words:
        tokens = words._prompt_tokens("a b c d e f g h i j")
    assert tokens in cache and cache[tokens].n_tokens >= len(tokens) and [5, 5, 5] not in cache
    with pytest.raises(KeyError):
        cache[[5, 5, 5]]


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_caches_have_a_capacity(kind: str, tmp_path: Path) -> None:
    def state(token: int) -> compat.LlamaState:
        return compat.LlamaState(np.array([token], np.intc), np.empty(0, np.single), bytes(1000), None, "slot")

    cache = LlamaRAMCache(2500) if kind == "memory" else LlamaDiskCache(tmp_path, 2500)
    for token in (1, 2, 3):
        cache[[token]] = state(token)
    assert [1] not in cache and [2] in cache and [3] in cache and cache.cache_size <= 2500
    assert cache[[2]].input_ids.tolist() == [2]


def test_tokenizer(llm: Llama) -> None:
    tokenizer = llm.tokenizer()
    assert tokenizer.decode(tokenizer.encode("Hello, world", add_bos=False)) == "Hello, world"
    assert tokenizer.tokenize(b"<|im_start|>", add_bos=False) == [1]


def test_grammar_rejects_the_name_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "rules.gbnf"
    path.write_text('root ::= "yes"')
    assert LlamaGrammar.from_file(path).text == 'root ::= "yes"'
    with pytest.raises(ValueError, match="from_file"):
        LlamaGrammar.from_string(str(path))
    with pytest.raises(ValueError, match="not JSON"):
        LlamaGrammar.from_json_schema("schema.json")


def test_scales_the_vectors_of_tokens() -> None:
    with Llama(TINY, embedding=True, n_ctx=128) as llama:
        plain, scaled = (np.array(llama.embed("Hello, world", normalize=value)) for value in (False, True))
        assert np.linalg.norm(scaled, axis=-1) == pytest.approx(1, abs=1e-4) and not np.allclose(plain, scaled)
        long = llama.create_embedding(["a " * 500, "b"])
        assert long["usage"]["prompt_tokens"] == 128 + len(llama.tokenize(b"b"))
