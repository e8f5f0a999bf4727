"""The blocking calls of `LLM` that generate no text: embeddings, rerank, tokens."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from cyllama._cancel import Cancel
from cyllama.llama._client import EngineClient
from cyllama.llama._enums import PoolingType
from cyllama.llama._message_types import Prompt
from cyllama.llama._validation import FieldValidator, rerank_body, text_or_token_lists, token_list
from cyllama.llama.responses import RerankResult

__all__ = ["VectorCalls", "Vectors"]

Vectors = npt.NDArray[np.float32]
TINY = np.finfo(np.float32).tiny


class VectorCalls(EngineClient):
    """The calls of `LLM` that generate no text."""

    _validator: FieldValidator

    @overload
    def embed(self, texts: str, *, normalize: bool = True, cancel: Cancel | None = None) -> Vectors: ...
    @overload
    def embed(
        self, texts: Sequence[Prompt], *, normalize: bool = True, cancel: Cancel | None = None
    ) -> Vectors | list[Vectors]: ...
    def embed(
        self, texts: str | Sequence[Prompt], *, normalize: bool = True, cancel: Cancel | None = None
    ) -> Vectors | list[Vectors]:
        """Compute the vectors of texts.

        Parameters
        ----------
        texts : str, or sequence of str or of tokens
        normalize : bool
            Scale each vector to length 1.
        cancel : Cancel, optional

        Returns
        -------
        ndarray of float32
            Shape (n, width); (width,) for one text. With ``pooling_type="none"``, and for chat models, which have no
            other type, a list of arrays of shape (tokens, width); one array for one text.

        Raises
        ------
        UnsupportedError
            The model was not loaded with ``embedding=True``.
        ContextFullError, CancelledError

        Notes
        -----
        Releases the GIL. Source: ``/v1/embeddings`` and ``/embeddings`` of llama-server.
        """
        many = text_or_token_lists(texts)
        if self.pooling_type == PoolingType.NONE:
            body: dict[str, Any] = {"input": many, "embd_normalize": -1}
            each = [np.array(row["embedding"], np.float32) for row in self._json("embedding", body, cancel)]
            if normalize:  # upstream does not scale the vectors of tokens
                each = [rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), TINY) for rows in each]
            return each[0] if isinstance(texts, str) else each
        body = {"input": many, "embd_normalize": 2 if normalize else -1, "encoding_format": "base64"}
        rows = self._json("embeddings", body, cancel)["data"]
        found = [np.frombuffer(base64.b64decode(row["embedding"]), np.float32) for row in rows]
        vectors: Vectors = np.stack(found)
        return vectors[0] if isinstance(texts, str) else vectors

    def rerank(
        self, query: str, documents: Sequence[str], *, top_n: int | None = None, cancel: Cancel | None = None
    ) -> list[RerankResult]:
        """Order documents by their relevance for a query.

        Parameters
        ----------
        query : str
        documents : sequence of str
        top_n : int, optional
            The most results.
        cancel : Cancel, optional

        Returns
        -------
        list of RerankResult
            ``index`` and ``relevance_score``, the most relevant document first.

        Raises
        ------
        UnsupportedError
            The model was not loaded with ``reranking=True``.

        Notes
        -----
        Releases the GIL. Source: ``/v1/rerank`` of llama-server.
        """
        body = rerank_body(query, documents, top_n)
        return [RerankResult(row) for row in self._json("rerank", body, cancel)["results"]]

    def tokenize(self, text: str, *, add_special: bool = False, parse_special: bool = True) -> list[int]:
        """Return the tokens of a text.

        Parameters
        ----------
        text : str
        add_special : bool
            Add the tokens that the model expects at the start and at the end of a text.
        parse_special : bool
            Parse control tokens such as ``<|im_end|>``.
        """
        if not isinstance(text, str):
            raise TypeError(f"text is {text!r:.200}, expected a string")
        body = {"content": text, "add_special": add_special, "parse_special": parse_special}
        return list(self._json("tokenize", body, None)["tokens"])

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens.

        Raises
        ------
        IndexError
            A token is not in the vocabulary.
        """
        given = self._validator.tokens(token_list(tokens, "tokens"))
        return str(self._json("detokenize", {"tokens": given}, None)["content"])
