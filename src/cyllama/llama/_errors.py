"""The exceptions for errors of the engine: the only module that reads upstream's words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cyllama.errors import ContextFullError, EngineError, GrammarError, RPCError, UnsupportedError
from cyllama.llama._model import LlamaModel
from cyllama.llama._sampler import LlamaSampler
from cyllama.llama.params import LlamaModelParams

__all__ = [
    "UPSTREAM_PHRASES",
    "explain_grammar_error",
    "handler_error",
    "is_prefill_error",
    "response_error",
]

CONTEXT_FULL = "exceed_context_size_error"
NOT_SUPPORTED = "not_supported_error"
INVALID_REQUEST = "invalid_request_error"
TOO_LARGE = "too large to process"
CONTEXT_EXCEEDED = "Context size has been exceeded"  # while it generates, by all sequences of a request together
NO_LOGITS = "does not support logits computation"
START_WITH = "Start it with `--"
REASONING_FORMAT = "Unknown reasoning format"
JSON_EXCEPTION = "json.exception"
PREFILL = "the grammar does not accept the prompt of the answer"
SERVER_LOST = "RPC server was lost"
GRAMMAR_WITHOUT_TOKENS = "the grammar cannot go on"
GRAMMAR_EXPECTING = "expecting "
GRAMMAR_ESCAPE = "unknown escape at "

# Each phrase by a source file of llama.cpp that has it; a test compares them.
UPSTREAM_PHRASES = {
    CONTEXT_FULL: "tools/server/server-common.cpp",
    NOT_SUPPORTED: "tools/server/server-common.cpp",
    INVALID_REQUEST: "tools/server/server-common.cpp",
    TOO_LARGE: "tools/server/server-context.cpp",
    CONTEXT_EXCEEDED: "tools/server/server-context.cpp",
    NO_LOGITS: "tools/server/server-context.cpp",
    START_WITH: "tools/server/server-context.cpp",
    REASONING_FORMAT: "common/chat.cpp",
    JSON_EXCEPTION: "vendor/nlohmann/json.hpp",
    PREFILL: "common/sampling.cpp",
    SERVER_LOST: "tools/server/server-context.cpp",
    GRAMMAR_WITHOUT_TOKENS: "common/sampling.cpp",
    GRAMMAR_EXPECTING: "src/llama-grammar.cpp",
    GRAMMAR_ESCAPE: "src/llama-grammar.cpp",
}


def response_error(data: Mapping[str, Any]) -> Exception:
    """Return the exception for the error in a response."""
    text, kind, code = str(data.get("message", data)), data.get("type"), data.get("code")
    if kind == CONTEXT_FULL or TOO_LARGE in text or CONTEXT_EXCEEDED in text:
        error = ContextFullError(text, engine="llama", code=code)
        error.n_prompt_tokens, error.n_ctx = data.get("n_prompt_tokens"), data.get("n_ctx")
        return error
    if SERVER_LOST in text:
        return RPCError("a machine of rpc= was lost; load the model again", engine="llama", code=code)
    if GRAMMAR_WITHOUT_TOKENS in text:
        return GrammarError(text.removeprefix("got exception: "))
    if NO_LOGITS in text:
        return UnsupportedError(
            "the model was loaded with embedding=True: it cannot generate text; embed() computes its vectors"
        )
    if kind == NOT_SUPPORTED:
        for option in ("embedding", "reranking"):
            if f"{START_WITH}{option}" in text:
                text = f"the model was not loaded with {option}=True"
        return UnsupportedError(text)
    if kind == INVALID_REQUEST:
        return GrammarError(text) if "grammar" in text.casefold() else ValueError(text)
    return EngineError(text, engine="llama", code=code)


def handler_error(error: EngineError) -> Exception:
    """Return the exception for one that a handler of upstream threw: a ValueError if it is about a value."""
    text = str(error)
    return ValueError(text) if JSON_EXCEPTION in text or text.startswith(REASONING_FORMAT) else error


def is_prefill_error(error: Exception) -> bool:
    """Return whether a grammar does not accept the text with which the chat template begins a response."""
    return PREFILL in str(error)


def explain_grammar_error(grammar: str, model: Path) -> GrammarError | None:
    """Return the error for a grammar that the scheduler rejected without a reason; None if the grammar is valid.

    Parameters
    ----------
    grammar : str
    model : Path
        The file whose vocabulary the grammar is for.
    """
    with LlamaModel(model, LlamaModelParams(vocab_only=True)) as loaded, LlamaSampler() as chain:
        try:
            chain.add_grammar(loaded.vocab, grammar)
        except GrammarError as error:
            return GrammarError(_with_position(str(error), grammar))
    return None


def _with_position(text: str, grammar: str) -> str:
    """Replace upstream's quote of the rest of the grammar by the line, the column and the line's text."""
    kinds = f"{GRAMMAR_EXPECTING}.*?|{GRAMMAR_ESCAPE.removesuffix(' at ')}"
    found = re.search(rf"error parsing grammar: ({kinds}) at (.*?)(?:; |\Z)", text, re.DOTALL)
    if found is None:
        undefined = re.search(r"error parsing grammar: ([^;]+)", text)
        return f"the grammar cannot be parsed: {undefined[1].strip()}" if undefined else text
    rest = found[2].strip()
    at = len(grammar) if not rest else grammar.rfind(rest)
    if at < 0:
        return f"the grammar cannot be parsed: {found[1]}"
    line = grammar.count("\n", 0, at) + 1
    column = at - (grammar.rfind("\n", 0, at) + 1) + 1
    shown = (grammar.splitlines() or [""])[min(line, grammar.count("\n") + 1) - 1]
    return f"the grammar cannot be parsed: {found[1]} at line {line}, column {column}: {shown[:80]!r}"
