"""OpenAI's completions, with the log probabilities of that API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cyllama.server.protocols.call import TextCall

__all__ = ["complete"]

OWN = ("model", "prompt", "stream", "sse_ping_interval")


def complete(call: TextCall) -> None:
    """Continue one text, or several."""
    fields = {name: value for name, value in call.fields.items() if name not in OWN}
    prompt = call.fields["prompt"]
    n_tops = fields.get("logprobs", 0)
    if "logprobs" in fields:
        fields["logprobs"] = max(1, n_tops)  # 0: no alternatives
    if "stream_options" in fields:
        fields["stream_options"] = {"include_usage": bool(fields["stream_options"].get("include_usage"))}
    if not call.fields.get("stream"):
        found = call.llm.complete(prompt, cancel=call.cancel, **fields).to_dict()
        for choice in found["choices"]:
            choice["logprobs"] = legacy_logprobs(choice["logprobs"], 0, n_tops)
        call.send(call.named(found))
        return
    call.expect_events()
    ends: dict[int, int] = {}
    with call.llm.complete(prompt, stream=True, cancel=call.cancel, **fields) as chunks:
        call.stream.start_events()
        for chunk in chunks:
            data = chunk.to_dict()
            for choice in data["choices"]:
                begin = ends.get(choice["index"], 0)
                ends[choice["index"]] = begin + len(choice["text"])
                choice["logprobs"] = legacy_logprobs(choice["logprobs"], begin, n_tops)
            call.write(call.named(data))
    call.stream.write(b"data: [DONE]\n\n")


def legacy_logprobs(found: Mapping[str, Any] | None, offset: int, n_tops: int) -> dict[str, Any] | None:
    """Return log probabilities in the form of this API.

    Parameters
    ----------
    found : mapping or None
        Those of the engine: ``content`` has a row for each token.
    offset : int
        Position of the first token's text in the text of the choice.
    n_tops : int
        The most alternatives of a token.
    """
    if found is None:
        return None
    rows: Sequence[Mapping[str, Any]] = found["content"]
    offsets, data = [], b""
    for row in rows:
        offsets.append(offset + len(data.decode("utf-8", "ignore")))
        data += bytes(row["bytes"])
    return {
        "tokens": [token_text(row) for row in rows],
        "token_logprobs": [row.get("logprob", row.get("prob")) for row in rows],
        "top_logprobs": [_alternatives(row, n_tops) for row in rows],
        "text_offset": offsets,
    }


def _alternatives(row: Mapping[str, Any], n_tops: int) -> dict[str, Any] | None:
    tops = row.get("top_logprobs", row.get("top_probs"))
    if not tops:  # the first token of an echoed prompt
        return None
    return {token_text(top): top.get("logprob", top.get("prob")) for top in tops[:n_tops]}


def token_text(row: Mapping[str, Any]) -> str:
    """Return the text of a token; the bytes of a part of a character as ``bytes:\\xe2\\x82``, as OpenAI writes them."""
    try:
        return bytes(row["bytes"]).decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in row["bytes"])
