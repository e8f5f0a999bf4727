"""Embeddings and reranking with models that were trained for them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from language.conftest import CHAT_MODEL
from openai.types import CreateEmbeddingResponse

from cyllama.errors import ContextFullError, UnsupportedError
from cyllama.llama.llm import LLM

SENTENCES = ["That is a happy person", "That is a happy dog", "That is a very happy person", "Today is a sunny day"]
COSINES = [0.695, 0.943, 0.257]  # of the first with the others, from the 32-bit weights


@pytest.fixture(scope="module")
def minilm() -> Iterator[LLM]:
    with LLM("minilm-l6", embedding=True) as model:
        yield model


@pytest.fixture(scope="module")
def reranker() -> Iterator[LLM]:
    with LLM("tiny-random-reranker", reranking=True) as model:
        yield model


def test_cosines_match_reference(minilm: LLM) -> None:
    vectors = minilm.embed(SENTENCES)
    assert vectors.shape == (4, 384) and vectors.dtype == np.float32
    np.testing.assert_allclose(vectors[0] @ vectors[1:].T, COSINES, atol=0.006)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_batch_matches_single_texts(minilm: LLM) -> None:
    together = minilm.embed(SENTENCES)
    for sentence, vector in zip(SENTENCES, together, strict=True):
        one = minilm.embed(sentence)
        assert one.shape == (384,)
        np.testing.assert_allclose(one, vector, atol=2e-4)


def test_normalizes_vectors(minilm: LLM) -> None:
    vector = minilm.embed(SENTENCES[0], normalize=False)
    length = np.linalg.norm(vector)
    assert abs(length - 1) > 0.01
    np.testing.assert_allclose(vector / length, minilm.embed(SENTENCES[0]), atol=1e-5)


def test_async_and_openai_forms_match(minilm: LLM) -> None:
    np.testing.assert_array_equal(asyncio.run(minilm.aembed(SENTENCES[0])), minilm.embed(SENTENCES[0]))
    raw = minilm._json("embeddings", {"input": SENTENCES[:2]}, None)
    CreateEmbeddingResponse.model_validate(raw)
    assert len(raw["data"]) == 2 and raw["usage"]["prompt_tokens"] > 0


def test_returns_token_vectors_without_pooling() -> None:
    with LLM(CHAT_MODEL, embedding=True, n_ctx=256) as model:
        tokens = len(model.tokenize("Hello, world", add_special=True))
        each = model.embed("Hello, world")
        assert each.shape == (tokens, 576)
        assert [len(rows) for rows in model.embed(["Hello, world", "Hello"])] == [tokens, 1]
    with LLM(CHAT_MODEL, embedding=True, n_ctx=256, pooling_type="mean") as model:
        mean = each.mean(0)
        pooled = model.embed("Hello, world")
        assert pooled.shape == (576,) and float(pooled @ mean) > 0


def test_orders_documents(reranker: LLM) -> None:
    documents = ["a cat is an animal", "the sky is blue", "dogs", "a cat is an animal"]
    rows = reranker.rerank("what is a cat?", documents)
    scores = [row.relevance_score for row in rows]
    assert scores == sorted(scores, reverse=True) and sorted(row.index for row in rows) == [0, 1, 2, 3]
    by_index = {row.index: row.relevance_score for row in rows}
    assert by_index[0] == pytest.approx(by_index[3], abs=1e-4)
    assert [row.index for row in reranker.rerank("what is a cat?", documents, top_n=2)] == [r.index for r in rows[:2]]
    found = asyncio.run(reranker.arerank("what is a cat?", documents, top_n=1))
    assert found[0].index == rows[0].index


def test_rejects_unsupported_models(minilm: LLM, reranker: LLM, llm: LLM) -> None:
    with pytest.raises(UnsupportedError):
        llm.embed("x")
    with pytest.raises(UnsupportedError):
        minilm.rerank("x", ["y"])
    with pytest.raises(ContextFullError, match="tokens"):
        minilm.embed("word " * 3000)
    with pytest.raises(ValueError):
        minilm.embed([])
    with pytest.raises(TypeError, match="texts"):
        minilm.embed([1, None])  # type: ignore[list-item]
    with pytest.raises(ValueError):
        reranker.rerank("x", [])
    assert minilm.embed("still here").shape == (384,)


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        (3, TypeError, "texts is 3, expected a string or"),
        (b"bytes", TypeError, "texts is b'bytes'"),
        ({"a": 1}, TypeError, "texts is {'a': 1}"),
        ([], ValueError, "expected a string or"),
        (["a", 3], TypeError, r"texts\[1\] is 3, expected a string or a sequence of tokens"),
        ([[1, "b"]], TypeError, r"texts\[0\] is \[1, 'b'\]"),
    ],
)
def test_rejects_invalid_texts(minilm: LLM, texts: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        minilm.embed(texts)


@pytest.mark.parametrize(
    ("query", "documents", "top_n", "error", "message"),
    [
        (3, ["a"], None, TypeError, "query is 3, expected a string"),
        ("a", "b", None, TypeError, "documents is 'b', expected a sequence of strings"),
        ("a", 3, None, TypeError, "documents is 3"),
        ("a", [], None, ValueError, "documents is"),
        ("a", ["b", None], None, TypeError, r"documents\[1\] is None, expected a string"),
        ("a", ["b"], "1", TypeError, "top_n is '1', expected an integer"),
        ("a", ["b"], 0, ValueError, "top_n is 0, expected 1 or more"),
    ],
)
def test_rejects_invalid_documents(
    reranker: LLM, query: Any, documents: Any, top_n: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        reranker.rerank(query, documents, top_n=top_n)
    assert len(reranker.rerank("a", ["b", "c"], top_n=1)) == 1


def test_embedding_model_rejects_chats(minilm: LLM) -> None:
    with pytest.raises(UnsupportedError, match="embedding=True"):
        minilm.chat("x")
