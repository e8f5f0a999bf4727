"""Fields of embeddings, reranking, and tokens."""

from __future__ import annotations

import functools

from cyllama.server.fields.completions import PROMPT
from cyllama.server.fields.field import Field, RouteFields
from cyllama.server.fields.sampling import BOOLEAN, COUNT, MODEL, TEXT, ignored, list_of, one_of

__all__ = [
    "detokenize_fields",
    "embedding_fields",
    "native_embedding_fields",
    "rerank_fields",
    "tokenize_fields",
]

CONTENT = {"type": "object", "required": ["content"]}
INPUT = {"anyOf": [*PROMPT["anyOf"][:3], CONTENT, list_of({"anyOf": [*PROMPT["anyOf"][:3], CONTENT]}, 1)]}
NORM = Field("embd_normalize", {"type": "integer", "minimum": -1}, "Norm of the vectors; 2: length 1, -1: none.")
DOCUMENTS = list_of({"anyOf": [TEXT, {"type": "object", "required": ["text"], "properties": {"text": TEXT}}]}, 1)


@functools.cache
def embedding_fields() -> RouteFields:
    """Return the fields of ``/v1/embeddings``."""
    fields = (
        MODEL,
        Field("input", INPUT, "A text, tokens, or a list of them.", required=True),
        Field("encoding_format", one_of("float", "base64"), "Form of the vectors."),
        Field("dimensions", {"type": "integer", "minimum": 1}, "Return the first components only, normalized again."),
        NORM,
        *ignored("user"),
    )
    return RouteFields("Compute embeddings.", fields)


@functools.cache
def native_embedding_fields() -> RouteFields:
    """Return the fields of ``/embedding``."""
    texts = (Field(name, INPUT, "A text, tokens, or a list of them.") for name in ("input", "content"))
    return RouteFields("Compute embeddings, in llama-server's form.", (MODEL, *texts, NORM))


@functools.cache
def rerank_fields() -> RouteFields:
    """Return the fields of ``/v1/rerank``."""
    fields = (
        MODEL,
        Field("query", TEXT, "The text that documents are compared with.", required=True),
        Field("documents", DOCUMENTS, "The documents."),
        Field("texts", list_of(TEXT, 1), "The documents, in TEI's form; changes the form of the response."),
        Field("top_n", {"type": "integer", "minimum": 1}, "The most results."),
        Field("return_documents", BOOLEAN, "Return the documents too."),
        Field("return_text", BOOLEAN, "Return the texts too, in TEI's form."),
        *ignored("user"),
    )
    return RouteFields("Order documents by relevance.", fields)


@functools.cache
def tokenize_fields() -> RouteFields:
    """Return the fields of ``/tokenize``."""
    fields = (
        MODEL,
        Field("content", {"anyOf": [TEXT, {"type": "array"}]}, "A text, or texts and tokens.", required=True),
        Field("add_special", BOOLEAN, "Add the tokens that begin and end a text."),
        Field("parse_special", BOOLEAN, "Parse control tokens; the default."),
        Field("with_pieces", BOOLEAN, "Return the text of each token too."),
    )
    return RouteFields("Return the tokens of a text.", fields)


@functools.cache
def detokenize_fields() -> RouteFields:
    """Return the fields of ``/detokenize``."""
    fields = (MODEL, Field("tokens", list_of(COUNT), "The tokens.", required=True))
    return RouteFields("Return the text of tokens.", fields)
