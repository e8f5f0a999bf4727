"""Embeddings and reranking."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import numpy.typing as npt

from cyllama.errors import UnsupportedError
from cyllama.server.http.errors import http_error
from cyllama.server.protocols.call import TextCall

__all__ = ["embed", "embed_native", "rerank"]


def embed(call: TextCall) -> None:
    """Compute embeddings, in OpenAI's form."""
    _check_model(call)
    fields = call.fields
    inputs = fields["input"]
    if inputs == "" or (isinstance(inputs, list) and "" in inputs):
        raise http_error(400, "input is an empty text, expected at least one token", param="input")
    body = {"input": inputs, "encoding_format": "base64"}
    body |= {name: fields[name] for name in ("embd_normalize",) if name in fields}
    found = call.request("embeddings", body)
    as_text = fields.get("encoding_format") == "base64"
    for row in found["data"]:
        vector = np.frombuffer(base64.b64decode(row["embedding"]), np.float32)
        row.pop("encoding_format", None)
        vector = _shortened(vector, fields.get("dimensions"), fields.get("embd_normalize", 2))
        row["embedding"] = base64.b64encode(vector.tobytes()).decode() if as_text else vector.tolist()
    call.send({**found, "model": call.entry.name})


def embed_native(call: TextCall) -> None:
    """Compute embeddings, in llama-server's form."""
    _check_model(call)
    fields = {name: value for name, value in call.fields.items() if name != "model"}
    if ("input" in fields) == ("content" in fields):
        raise http_error(400, "expected either input or content", param="input")
    call.send(call.request("embedding", fields))


def _check_model(call: TextCall) -> None:
    if call.entry.task == "rerank":
        raise UnsupportedError(f"{call.entry.name} is a reranking model, which has no embeddings")


def _shortened(vector: npt.NDArray[np.float32], dimensions: int | None, norm: int) -> npt.NDArray[np.float32]:
    """Return the first components, normalized again."""
    if dimensions is None or dimensions == len(vector):
        return vector
    if dimensions > len(vector):
        raise http_error(400, f"dimensions is {dimensions}, expected 1 to {len(vector)}", param="dimensions")
    part = vector[:dimensions]
    length = float(np.linalg.norm(part))
    return part / np.float32(length) if norm == 2 and length > 0 else part


def rerank(call: TextCall) -> None:
    """Order documents by relevance, in the form of Jina and Cohere, or with ``texts`` in that of TEI."""
    fields = {name: value for name, value in call.fields.items() if name != "model"}
    as_tei = "texts" in fields
    if as_tei == ("documents" in fields):
        raise http_error(400, "expected either documents or texts", param="documents")
    given = fields.pop("texts" if as_tei else "documents")
    texts = [text if isinstance(text, str) else text["text"] for text in given]
    top_n = fields.get("top_n", len(texts))
    query: dict[str, Any] = {"query": fields["query"], "documents": texts, "top_n": min(top_n, len(texts))}
    found = call.request("rerank", query)
    rows = found["results"]
    if as_tei:
        shown = {"text": texts} if fields.get("return_text") else {}
        call.send([{"index": row["index"], "score": row["relevance_score"],
                    **{key: value[row["index"]] for key, value in shown.items()}} for row in rows])  # fmt: skip
        return
    if fields.get("return_documents"):
        rows = [{**row, "document": {"text": texts[row["index"]]}} for row in rows]
    call.send({**found, "results": rows, "model": call.entry.name})
