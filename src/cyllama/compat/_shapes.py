"""Responses in the form of llama-cpp-python."""

from __future__ import annotations

import fnmatch
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from cyllama.llama import Stream

__all__ = ["chunk_dicts", "infill_completion", "legacy_logprobs", "matching_file"]


def chunk_dicts(stream: Stream[Any, Any], before: str = "") -> Iterator[dict[str, Any]]:
    """Yield the chunks of a stream as dicts, with a text before the first one."""
    with stream:
        for chunk in stream:
            data: dict[str, Any] = chunk.to_dict()
            for choice in data["choices"]:
                if "text" in choice:
                    choice["logprobs"] = legacy_logprobs(choice.get("logprobs"), 0)
                    choice["text"], before = before + choice["text"], ""
            yield data


def infill_completion(response: Mapping[str, Any]) -> dict[str, Any]:
    """Return the response of `LLM.infill` as a completion."""
    computed, made = response["tokens_evaluated"], response["tokens_predicted"]
    reason = "length" if response["stop_type"] == "limit" else "stop"
    return {
        "id": f"cmpl-{uuid.uuid4()}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": response["model"],
        "choices": [{"index": 0, "text": response["content"], "finish_reason": reason, "logprobs": None}],
        "usage": {"prompt_tokens": computed, "completion_tokens": made, "total_tokens": computed + made},
    }


def legacy_logprobs(found: Mapping[str, Any] | None, offset: int) -> dict[str, Any] | None:
    """Return logprobs in the form of OpenAI's first API.

    Parameters
    ----------
    found : mapping, optional
        Logprobs in the form of chats.
    offset : int
        Characters before the first token.
    """
    if found is None:
        return None
    rows = found["content"]
    offsets = []
    for row in rows:
        offsets.append(offset)
        offset += len(row["token"])
    return {
        "tokens": [row["token"] for row in rows],
        "token_logprobs": [row["logprob"] for row in rows],
        "top_logprobs": [{top["token"]: top["logprob"] for top in row["top_logprobs"]} for row in rows],
        "text_offset": offsets,
    }


def matching_file(repo_id: str, pattern: str) -> str:
    """Return the file of a repository of the Hugging Face hub that matches a pattern.

    Raises
    ------
    ValueError
        None matches, or several do.
    """
    if not any(sign in pattern for sign in "*?["):
        return pattern
    from huggingface_hub import list_repo_files

    names = [name for name in list_repo_files(repo_id) if fnmatch.fnmatch(name, pattern)]
    if len(names) != 1:
        raise ValueError(f"filename is {pattern!r}, but {len(names)} files of {repo_id} match: {', '.join(names)}")
    return names[0]
