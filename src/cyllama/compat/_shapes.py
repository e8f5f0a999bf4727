"""Answers in the shapes of llama-cpp-python."""

from __future__ import annotations

import fnmatch
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["filled", "old_logprobs", "plain_parts", "the_file"]


def plain_parts(stream: Any, before: str = "") -> Iterator[dict[str, Any]]:
    """The parts of a stream as dicts, with a text before the first one."""
    with stream:
        for part in stream:
            data = part.to_dict()
            for choice in data["choices"]:
                if "text" in choice:
                    choice["logprobs"] = old_logprobs(choice.get("logprobs"), 0)
                    choice["text"], before = before + choice["text"], ""
            yield data


def filled(answer: Mapping[str, Any]) -> dict[str, Any]:
    """What `LLM.infill` gives, as a completion."""
    computed, made = answer["tokens_evaluated"], answer["tokens_predicted"]
    reason = "length" if answer["stop_type"] == "limit" else "stop"
    return {
        "id": f"cmpl-{uuid.uuid4()}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": answer["model"],
        "choices": [{"index": 0, "text": answer["content"], "finish_reason": reason, "logprobs": None}],
        "usage": {"prompt_tokens": computed, "completion_tokens": made, "total_tokens": computed + made},
    }


def old_logprobs(found: Mapping[str, Any] | None, offset: int) -> dict[str, Any] | None:
    """Logarithms of probabilities in the form of OpenAI's first API.

    Parameters
    ----------
    found : mapping, optional
        In the form for chats.
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


def the_file(repo_id: str, pattern: str) -> str:
    """The one file of a repository of the Hugging Face hub that fits a pattern; a name without wildcards as it is.

    Raises
    ------
    ValueError
        None fits, or several do.
    """
    if not any(sign in pattern for sign in "*?["):
        return pattern
    from huggingface_hub import list_repo_files

    names = [name for name in list_repo_files(repo_id) if fnmatch.fnmatch(name, pattern)]
    if len(names) != 1:
        raise ValueError(f"filename is {pattern!r}, which {len(names)} files of {repo_id} fit: {', '.join(names)}")
    return names[0]
