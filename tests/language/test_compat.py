"""`cyllama.compat.Llama` runs programs written for llama-cpp-python."""

from __future__ import annotations

import io
import itertools
import json
import pickle
import runpy
import sys
import tarfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from language.conftest import CHAT_MODEL

from cyllama import compat, models
from cyllama.compat import (
    Llama,
    LlamaGrammar,
    LlamaPromptLookupDecoding,
    LogitsProcessorList,
    StoppingCriteriaList,
)
from cyllama.compat.llama_chat_format import MTMDChatHandler
from cyllama.errors import ContextFullError, UnsupportedError
from cyllama.models._cache import cache_folder
from cyllama.models._download import Archive, fetch

FACT = [{"role": "user", "content": "What is the capital of France? Answer with one word."}]


@pytest.fixture(scope="module")
def llama() -> Iterator[Llama]:
    with Llama(model_path=str(models.get(CHAT_MODEL)), n_ctx=1024, seed=7, verbose=False) as model:
        yield model


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples of llama-cpp-python, from its smallest archive with examples."""
    source = Archive(
        package="llama_cpp_python",
        version="0.2.6",
        filename="llama_cpp_python-0.2.6.tar.gz",
        sha256="5f751db065c3bf7969ddf64a0051cffef6952479624e2c042bb35239f6ba13a2",
        size=1_551_867,
    )
    folder = tmp_path_factory.mktemp("examples")
    with tarfile.open(fetch(source, cache_folder("archives"))) as archive:
        for member in archive.getmembers():
            if "/examples/high_level_api/" in member.name and member.isfile():
                file = archive.extractfile(member)
                assert file is not None
                (folder / Path(member.name).name).write_bytes(file.read())
    return folder


def run_example(monkeypatch: pytest.MonkeyPatch, path: Path) -> str:
    monkeypatch.setitem(sys.modules, "llama_cpp", compat)
    monkeypatch.setattr(sys, "argv", [path.name, "-m", str(models.get(CHAT_MODEL))])
    out = io.StringIO()
    with redirect_stdout(out):
        runpy.run_path(str(path))["llm"].close()
    return out.getvalue()


def test_runs_examples_of_llama_cpp_python(monkeypatch: pytest.MonkeyPatch, examples: Path) -> None:
    response = json.loads(run_example(monkeypatch, examples / "high_level_api_inference.py"))
    assert response["choices"][0]["text"].startswith("Question: What are the names of the planets")
    assert response["object"] == "text_completion" and response["usage"]["completion_tokens"] > 0
    parts = run_example(monkeypatch, examples / "high_level_api_streaming.py")
    decoder, at, objects = json.JSONDecoder(), 0, []
    while at < len(parts.rstrip()):
        part, at = decoder.raw_decode(parts, at)
        objects.append(part)
        at += 1
    assert {part["object"] for part in objects} == {"text_completion"}
    assert objects[-1]["choices"][0]["finish_reason"] in ("stop", "length")
    assert "'embedding': [" in run_example(monkeypatch, examples / "high_level_api_embedding.py")


def test_completions_match_llm(llama: Llama) -> None:
    first = llama("The quick brown fox", max_tokens=6, temperature=0)
    below = llama("The quick brown fox", max_tokens=6, temperature=-1.0, top_k=-1)  # as 0 is
    assert below["choices"] == first["choices"]
    assert isinstance(first, dict) and first["usage"]["completion_tokens"] == 6
    tokens = llama.tokenize(b"The quick brown fox")
    echoed = llama.create_completion(tokens, max_tokens=6, temperature=0, echo=True)
    assert echoed["choices"][0]["text"] == "The quick brown fox" + first["choices"][0]["text"]
    parts = list(llama("The quick brown fox", max_tokens=6, temperature=0, stream=True, echo=True))
    assert "".join(part["choices"][0]["text"] for part in parts) == echoed["choices"][0]["text"]
    assert llama("1 2 3", max_tokens=0, stop=["9"])["usage"]["completion_tokens"] > 3  # 0 is no limit


def test_stops_at_the_earliest_stop_text(llama: Llama) -> None:
    text = llama("1 2 3 4 5", max_tokens=24, temperature=0)["choices"][0]["text"]
    assert "7" in text and "9" in text
    cut = llama("1 2 3 4 5", max_tokens=24, temperature=0, stop=["9", "7"])["choices"][0]["text"]
    assert cut == text[: text.index("7")]


def test_applies_bias_and_processors(llama: Llama) -> None:
    def ban(ids: Any, scores: Any) -> Any:
        scores[banned] = -np.inf
        return scores

    plain = llama("The capital of France is", max_tokens=1, temperature=0)["choices"][0]["text"]
    (banned, *_) = llama.tokenize(plain.encode(), add_bos=False)
    second = llama("The capital of France is", max_tokens=1, temperature=0, logits_processor=LogitsProcessorList([ban]))
    other = second["choices"][0]["text"]
    assert other != plain
    (biased, *_) = llama.tokenize(other.encode(), add_bos=False)
    third = llama(
        "The capital of France is",
        max_tokens=1,
        temperature=0,
        logits_processor=LogitsProcessorList([ban]),
        logit_bias={biased: -100.0},
    )
    assert third["choices"][0]["text"] not in (plain, other)
    stopped = llama("1 2 3", max_tokens=50, temperature=0,
                    stopping_criteria=StoppingCriteriaList([lambda ids, scores: len(ids) >= 12]))  # fmt: skip
    assert stopped["usage"]["total_tokens"] == 12 and stopped["choices"][0]["finish_reason"] == "stop"


def test_chats_match_llm(llama: Llama) -> None:
    response = llama.create_chat_completion(FACT, max_tokens=12, temperature=0)
    assert "Paris" in response["choices"][0]["message"]["content"]
    parts = list(llama.create_chat_completion(FACT, max_tokens=12, temperature=0, stream=True))
    text = "".join(part["choices"][0]["delta"].get("content", "") for part in parts)
    assert text == response["choices"][0]["message"]["content"]
    typed = llama.create_chat_completion_openai_v1(FACT, max_tokens=12, temperature=0)
    assert typed.choices[0].message.content == text
    schema = {"type": "object", "properties": {"name": {"enum": ["x", "y"]}}, "required": ["name"]}
    form = {"type": "json_object", "schema": schema}
    content = llama.create_chat_completion(FACT, max_tokens=40, response_format=form)["choices"][0]["message"][
        "content"
    ]
    assert json.loads(content)["name"] in ("x", "y")


def test_accepts_grammars(llama: Llama) -> None:
    grammar = LlamaGrammar.from_string('root ::= "true" | "false"', verbose=False)
    assert llama("Water is wet:", grammar=grammar, max_tokens=8)["choices"][0]["text"] in ("true", "false")
    schema = LlamaGrammar.from_json_schema('{"type": "integer"}')
    assert int(llama("2 + 2 =", grammar=schema, max_tokens=8)["choices"][0]["text"]) >= 0


def test_generates_token_by_token(llama: Llama) -> None:
    tokens = llama.tokenize(b"The quick brown fox")
    made: list[int] = []
    for token in llama.generate(tokens, temperature=0):
        made.append(token)
        if len(made) == 6:
            break
    assert (
        llama.detokenize(made).decode()
        == llama("The quick brown fox", max_tokens=6, temperature=0)["choices"][0]["text"]
    )
    llama.reset()
    llama.eval(tokens)
    state = llama.save_state()
    assert llama.n_tokens == len(tokens) and llama.input_ids.tolist() == tokens
    first = llama.sample(temperature=0)
    llama.eval([first])
    second = llama.sample(temperature=0)
    llama.load_state(state)
    assert llama.sample(temperature=0) == first == made[0] and second == made[1]


def test_has_documented_names(llama: Llama) -> None:
    """``generate`` and ``sample`` name the temperature ``temp`` and reject unknown names."""
    tokens = llama.tokenize(b"The quick brown fox")
    given: dict[str, Any] = {"top_k": 40, "top_p": 0.95, "repeat_penalty": 1.0, "tfs_z": 1.0, "penalize_nl": True}
    texts = []
    for seed in (1, 2):
        llama.set_seed(seed)
        made = itertools.islice(llama.generate(tokens, temp=0.0, **given), 8)
        texts.append(llama.detokenize(list(made)))
    assert texts[0] == texts[1]
    llama.set_seed(7)
    with pytest.raises(TypeError, match="'tempratur'; did you mean 'temperature'"):
        next(llama.generate(tokens, tempratur=0.0))
    llama.reset()
    llama.eval(tokens)
    with pytest.raises(TypeError, match="'top'"):
        llama.sample(top=3)
    with pytest.raises(UnsupportedError, match="tfs_z"):
        llama("x", tfs_z=0.5)
    assert llama("x", tfs_z=1.0, max_tokens=1)["usage"]["completion_tokens"] == 1
    assert (
        llama.tokenizer().tokenize(b"Hi") == llama.tokenize(b"Hi") and llama.longest_token_prefix([1, 2], [1, 3]) == 1
    )
    np.testing.assert_allclose(np.exp(llama.logits_to_logprobs([[1.0, 2.0]])).sum(), 1, atol=1e-6)


def test_loop_penalties_include_the_prompt(llama: Llama) -> None:
    prompt, keep = "blue blue blue blue blue blue", LogitsProcessorList([lambda ids, scores: scores])
    plain = llama(prompt, max_tokens=4, temperature=0, logits_processor=keep)["choices"][0]["text"]
    assert "blue" in plain
    assert "blue" not in llama(prompt, max_tokens=1, temperature=0, presence_penalty=5.0,
                               logits_processor=keep)["choices"][0]["text"]  # fmt: skip


def test_loop_supports_mirostat(llama: Llama) -> None:
    keep = LogitsProcessorList([lambda ids, scores: scores])
    given: dict[str, Any] = {"max_tokens": 12, "temperature": 1.5, "seed": 3, "logits_processor": keep}
    texts = {llama("The", mirostat_mode=mode, **given)["choices"][0]["text"] for mode in (0, 1, 2)}
    assert len(texts) == 3


def test_criteria_get_logits(llama: Llama) -> None:
    seen = []

    def stop(ids: Any, scores: Any) -> bool:
        seen.append((len(ids), scores.shape, bool(np.isfinite(scores).all()), int(scores.argmax())))
        return len(seen) == 3

    llama("The capital of France is", temperature=0, stopping_criteria=StoppingCriteriaList([stop]))
    assert [shape for _, shape, _, _ in seen] == [(49152,)] * 3 and all(finite for *_, finite, _ in seen)
    first = llama("The capital of France is", temperature=0, max_tokens=1)["choices"][0]["text"]
    assert llama.detokenize([seen[0][3]]).decode() == first


def test_joins_characters_of_several_tokens(llama: Llama) -> None:
    """The loop joins the bytes of a character and finds stop texts that span several tokens."""
    keep = LogitsProcessorList([lambda ids, scores: scores])
    grammar = LlamaGrammar.from_string('root ::= "日本語は難しい END more"')
    made = llama("x", grammar=grammar, max_tokens=60, logits_processor=keep, stop=["END"])["choices"][0]
    assert made["text"] == "日本語は難しい " and made["finish_reason"] == "stop"
    cut = llama("x", grammar=grammar, max_tokens=5, logits_processor=keep)["choices"][0]
    assert cut["finish_reason"] == "length"


def test_returns_legacy_logprobs(llama: Llama) -> None:
    """The form is that of OpenAI's first API."""
    choice = llama("The capital of France is", max_tokens=3, temperature=0, logprobs=2)["choices"][0]
    found = choice["logprobs"]
    assert "".join(found["tokens"]) == choice["text"] and len(found["token_logprobs"]) == 3
    assert all(len(top) == 2 and max(top.values()) == pytest.approx(value)
               for top, value in zip(found["top_logprobs"], found["token_logprobs"], strict=True))  # fmt: skip
    assert found["text_offset"][0] == len("The capital of France is")
    assert llama("The", max_tokens=1)["choices"][0]["logprobs"] is None
    for part in llama("The", max_tokens=2, logprobs=1, stream=True):
        for one in part["choices"]:
            assert one["logprobs"] is None or list(one["logprobs"]) == list(found)


def test_returns_embeddings(llama: Llama) -> None:
    with Llama(str(models.get("minilm-l6")), embedding=True, n_batch=64, n_ctx=512) as embedder:
        one, count = embedder.embed("a happy person", return_count=True)
        assert len(one) == 384 and count == 5 and isinstance(one[0], float)
        two = embedder.embed(["a happy person", "a dog"], normalize=True)
        assert np.linalg.norm(two, axis=1) == pytest.approx([1, 1], abs=1e-4)
        long = "a happy person " * 100
        cut, count = embedder.embed(long, return_count=True)
        assert count == 64 and len(cut) == 384
        with pytest.raises(ContextFullError):
            embedder.embed(long, truncate=False)
        found = embedder.create_embedding(["a", "b"], model="m")
        assert [row["index"] for row in found["data"]] == [0, 1] and found["model"] == "m"
    with Llama(str(models.get(CHAT_MODEL)), embedding=True, n_ctx=128) as tokens:
        assert np.shape(tokens.embed("Hello, world")) == (3, 576)
        assert [len(rows) for rows in tokens.embed(["Hello, world", "Hello"])] == [3, 1]
        assert tokens.pooling_type() == 0


def test_finds_hub_files_by_pattern(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in ``Llama.from_pretrained(repo_id, filename="*q8_0.gguf")``."""
    import huggingface_hub

    asked: list[Any] = []

    def fetch_file(repo: str, name: str, **folders: Any) -> str:
        asked.append((repo, name, folders))
        return str(models.get("tiny-random-llama"))

    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda repo: ["README.md", "m-q4_0.gguf", "m-q8_0.gguf"])
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch_file)
    with Llama.from_pretrained("a/b", "*q8_0.gguf", additional_files=["*q4*"], local_dir="here", n_ctx=64) as llama:
        assert llama.n_ctx() == 64 or llama.n_ctx() == 256
    assert [name for _, name, _ in asked] == ["m-q8_0.gguf", "m-q4_0.gguf"]
    assert asked[0][2] == {"local_dir": "here", "cache_dir": None}
    with Llama.from_pretrained("a/b", "x.gguf", cache_dir="there", vocab_only=True):
        assert asked[-1] == ("a/b", "x.gguf", {"local_dir": None, "cache_dir": "there"})
    with pytest.raises(ValueError, match="2 files"):
        Llama.from_pretrained("a/b", "*.gguf")
    with pytest.raises(ValueError, match="0 files"):
        MTMDChatHandler.from_pretrained("a/b", "*.bin")


def test_returns_model_properties(llama: Llama) -> None:
    assert (llama.n_ctx(), llama.n_vocab(), llama.n_embd()) == (1024, 49152, 576)
    assert llama.token_eos() == 2 and llama.metadata["general.architecture"] == "llama"


def test_loads_vocabulary_only() -> None:
    with Llama(str(models.get("vocab-llama-spm")), vocab_only=True) as llama:
        assert llama.tokenize(b"Hello World") == [1, 15043, 2787]
        assert llama.tokenize(b"Hello World</s>", special=True) == [1, 15043, 2787, 2]
        assert llama.detokenize([1, 15043, 2787]) == b"Hello World"


def test_is_picklable(llama: Llama) -> None:
    with pickle.loads(pickle.dumps(llama)) as again:
        assert (
            "Paris"
            in again.create_chat_completion(FACT, max_tokens=12, temperature=0)["choices"][0]["message"]["content"]
        )


def test_supports_prompt_lookup_decoding() -> None:
    lookup = LlamaPromptLookupDecoding(num_pred_tokens=8)
    with Llama(str(models.get(CHAT_MODEL)), n_ctx=512, draft_model=lookup) as llama:
        text = "one two three four one two three four one two three"
        response = llama(text, max_tokens=24, temperature=0)
        assert response["timings"]["draft_n"] > 0


def test_rejects_unsupported_arguments(llama: Llama) -> None:
    with pytest.raises(TypeError, match="n_gpu_layer"):
        Llama("x.gguf", n_gpu_layer=-1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="chat_handler"):
        Llama("x.gguf", chat_handler=object())
    with pytest.raises(FileNotFoundError):
        Llama("x.gguf")
    with pytest.raises(TypeError):
        llama("x", tempratur=0)
