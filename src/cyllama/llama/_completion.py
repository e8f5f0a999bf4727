"""Text completions: several prompts and choices in one request, and their joint response in OpenAI's form.

The request goes to upstream's own route, whose responses have the numbers of each choice.
"""

from __future__ import annotations

import itertools
import math
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from cyllama.llama._validation import token_list

__all__ = ["COMPLETION_FIELDS", "CompletionChunks", "CompletionRequest", "completion_request"]

# What upstream returns for each choice; without the list it also returns the prompt and all settings.
RESULT_FIELDS = (
    *("index", "content", "tokens", "id_slot", "stop", "stop_type", "tokens_predicted", "tokens_evaluated"),
    *("timings", "completion_probabilities", "prompt_probabilities"),
)
ENDED = ("eos", "word")  # the stop types of a text that was not cut off
COMPLETION_FIELDS = ("echo", "model", "id_slot", "suffix", "best_of")  # those that upstream's schema does not have
MAX_PROMPT_ALTERNATIVES = 20  # a prompt has as many entries as the context has tokens
OWN_FIELDS = ("best_of", "echo", "logprobs", "model", "n", "n_cmpl", "stream_options", "suffix")


@dataclass(frozen=True, kw_only=True)
class CompletionRequest:
    """A request for the continuations of prompts.

    Attributes
    ----------
    prompts : sequence of str, of list of int, or of mapping
    echoed : sequence of str
        What precedes the text of each prompt's choices; empty without ``echo``.
    n_given : sequence of int
        How many tokens each echoed prompt has, without those that are added.
    n, best_of : int
        Choices of each prompt, and how many are generated for them.
    suffix : str or None
        The text that follows the generated one.
    fields : mapping
        All fields of the request.
    head : mapping
        ``model`` and ``system_fingerprint``.

    Raises
    ------
    ValueError
        Two fields exclude each other.
    """

    prompts: Sequence[Any]
    echoed: Sequence[str] = ()
    n_given: Sequence[int] = ()
    n: int = 1
    best_of: int = 1
    suffix: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    head: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.suffix is not None and (len(self.prompts) > 1 or not isinstance(self.prompts[0], str)):
            raise ValueError("suffix needs one prompt that is a string")
        if self.best_of < self.n:
            raise ValueError(f"best_of is {self.best_of}, expected {self.n} (n) or more")
        if self.fields.get("response_fields") and not self.fields.get("verbose"):
            raise ValueError("response_fields selects details of a verbose response: set verbose too")
        if not self.has_prompt_logprobs:
            return
        if self.suffix is not None or any(isinstance(prompt, Mapping) for prompt in self.prompts):
            raise ValueError("echo with logprobs supports neither suffix nor media")
        if self.n_probs > MAX_PROMPT_ALTERNATIVES:
            raise ValueError(f"logprobs is {self.n_probs}, expected {MAX_PROMPT_ALTERNATIVES} at most with echo")
        if self.fields.get("post_sampling_probs"):
            raise ValueError("echo with logprobs excludes post_sampling_probs: a prompt is not sampled")

    @property
    def n_probs(self) -> int:
        """How many alternatives of each token the response has; 0 for no probabilities."""
        return int(self.fields.get("n_probs", self.fields.get("logprobs")) or 0)

    @property
    def has_prompt_logprobs(self) -> bool:
        """Whether the response has the log probabilities of the prompt's tokens."""
        return bool(self.echoed and self.n_probs)

    @property
    def route(self) -> str:
        """The name of upstream's route."""
        return "completion" if self.suffix is None else "infill"

    def body(self) -> dict[str, Any]:
        """Return the body for upstream's route."""
        found = {name: value for name, value in self.fields.items() if name not in OWN_FIELDS}
        if self.suffix is None:
            found["prompt"] = self.prompts[0] if len(self.prompts) == 1 else list(self.prompts)
        else:
            found |= {"input_prefix": self.prompts[0], "input_suffix": self.suffix}
        if self.has_prompt_logprobs:
            found |= {"prompt_probs": True, "cache_prompt": False}
        found["n_cmpl"] = self.best_of
        if not self.fields.get("verbose"):  # or else all of them
            found["response_fields"] = list(RESULT_FIELDS)
        elif "response_fields" in found:
            found["response_fields"] = [*found["response_fields"], *RESULT_FIELDS]
        return {**found, "n_probs": max(1, self.n_probs) if self.best_of > self.n else self.n_probs}

    def response(self, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the response for the results of all choices that were generated."""
        choices = []
        for start in range(0, len(results), self.best_of):
            group = list(results[start : start + self.best_of])
            given = self.prompt_rows(group[0], start // self.best_of)
            if self.best_of > self.n:
                group.sort(key=_mean_logprob, reverse=True)
            for i, result in enumerate(group[: self.n]):
                choices.append(self.choice(result, start // self.best_of * self.n + i, given))
        found = {"object": "text_completion", "choices": choices, "usage": self.usage(results), **new_head(self.head)}
        return {**found, "id_slot": results[0]["id_slot"], "timings": results[0]["timings"], **self.details(results[0])}

    def details(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Return the details of a verbose response."""
        if not self.fields.get("verbose"):
            return {}
        chosen = self.fields.get("response_fields") or result
        return {"__verbose": {name: result[name] for name in chosen if name in result}}

    def prompt_rows(self, result: Mapping[str, Any], n_prompt: int) -> list[Mapping[str, Any]]:
        """Return the probabilities of a prompt's tokens; the first one has none, and an added BOS token is left out."""
        if not self.has_prompt_logprobs:
            return []
        rows = list(result.get("prompt_probabilities") or ())
        if len(rows) > self.n_given[n_prompt]:
            del rows[0]
        return [{**rows[0], "logprob": None, "top_logprobs": []}, *rows[1:]] if rows else []

    def choice(self, result: Mapping[str, Any], index: int, given: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the choice for a result, and for the probabilities of the prompt's tokens."""
        before = self.echoed[index // self.n] if self.echoed else ""
        rows = [*given, *(result.get("completion_probabilities") or ())]
        found = {
            "text": before + result["content"],
            "index": index,
            "logprobs": {"content": rows} if rows and self.n_probs else None,
            "finish_reason": "stop" if result["stop_type"] in ENDED else "length",
        }
        return found | ({"tokens": result["tokens"]} if self.fields.get("return_tokens") else {})

    def usage(self, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the number of tokens: of each prompt once, and of all generated texts."""
        firsts = results[:: self.best_of]
        prompt = sum(result["tokens_evaluated"] for result in firsts)
        generated = sum(result["tokens_predicted"] for result in results)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": generated,
            "total_tokens": prompt + generated,
            "prompt_tokens_details": {"cached_tokens": sum(result["timings"]["cache_n"] for result in firsts)},
        }


class CompletionChunks:
    """The chunks of a streamed response, made from upstream's events."""

    def __init__(self, request: CompletionRequest) -> None:
        if request.best_of > request.n:
            raise ValueError(f"best_of is {request.best_of}, but a stream cannot choose: expected {request.n} (n)")
        if request.has_prompt_logprobs and request.n > 1:
            raise ValueError(f"n is {request.n}, expected 1 for a stream with echo and logprobs")
        options = request.fields.get("stream_options") or {}
        self._request, self._include_usage = request, bool(options.get("include_usage"))
        self._head = {**new_head(request.head), "object": "text_completion"}
        self._begun: set[int] = set()
        self._results: dict[int, Mapping[str, Any]] = {}

    def feed(self, event: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the chunks for an event."""
        if "error" in event or "index" not in event:
            return [event]
        index, request = event["index"], self._request
        rows = [
            *request.prompt_rows(event, index // request.n),
            *(event.get("completion_probabilities") or ()),
        ]
        text = event["content"]
        if request.echoed and index not in self._begun:
            text = request.echoed[index // request.n] + text
        self._begun.add(index)
        logprobs = {"content": rows} if rows and request.n_probs else None
        choice = {"text": text, "index": index, "logprobs": logprobs, "finish_reason": None}
        if request.fields.get("return_tokens"):
            choice["tokens"] = event.get("tokens", [])
        chunk = {"choices": [choice], **self._head}
        chunk |= {name: event[name] for name in ("timings", "prompt_progress") if name in event}
        if not event["stop"]:
            return [chunk]
        choice["finish_reason"] = "stop" if event["stop_type"] in ENDED else "length"
        chunk |= {"id_slot": event["id_slot"], **request.details(event)}
        self._results[index] = event
        return [chunk]

    def end(self) -> tuple[dict[str, Any] | None, bool]:
        """Return the last chunk, which has the usage, and whether the client asked for it."""
        results = [result for _, result in sorted(self._results.items())]
        if not results:
            return None, False
        return {"choices": [], "usage": self._request.usage(results), **self._head}, self._include_usage


def _mean_logprob(result: Mapping[str, Any]) -> float:
    rows = result.get("completion_probabilities") or ()
    values = [row["logprob"] if "logprob" in row else math.log(row["prob"] or sys.float_info.min) for row in rows]
    return sum(values) / len(values) if values else float("-inf")


def new_head(head: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that identify a response."""
    return {"id": f"cmpl-{uuid.uuid4().hex}", "created": int(time.time()), **head}


class Tokenizer(Protocol):
    """A model that converts texts to tokens and back."""

    def tokenize(self, text: str, /) -> Sequence[int]: ...
    def detokenize(self, tokens: Sequence[int], /) -> str: ...


def completion_request(
    prompt: Any, fields: Mapping[str, Any], head: Mapping[str, Any], tokenizer: Tokenizer
) -> CompletionRequest:
    """Return the request for one prompt, or for several.

    Parameters
    ----------
    prompt : str, sequence of int, mapping, or list of them
        Tokens may have texts between them, as in ``[1, "text", 2]``.
        A mapping is upstream's prompt with media: ``{"prompt_string": ..., "multimodal_data": [...]}``.
    fields, head
        As of `CompletionRequest`.
    tokenizer : Tokenizer

    Raises
    ------
    TypeError, ValueError
    """
    many = isinstance(prompt, list | tuple) and bool(prompt) and not any(isinstance(part, int) for part in prompt)
    prompts = [_checked_prompt(p) for p in (prompt if many else [prompt])]
    if [] in prompts:
        raise ValueError(f"prompt is {prompt!r:.100}, expected a text or at least one token")
    echo = bool(fields.get("echo"))
    scored = echo and bool(fields.get("n_probs") or fields.get("logprobs"))
    n = int(fields.get("n") or fields.get("n_cmpl") or 1)
    return CompletionRequest(
        prompts=prompts,
        echoed=[_text_of(p, tokenizer) for p in prompts] if echo else (),
        n_given=[_n_tokens(p, tokenizer) for p in prompts] if scored else (),
        n=n,
        best_of=int(fields.get("best_of") or n),
        suffix=fields.get("suffix"),
        fields=fields,
        head=head,
    )


def _checked_prompt(prompt: Any) -> Any:
    """Return a prompt: a text, a mapping, or a list of tokens with texts between them."""
    if isinstance(prompt, str | Mapping):
        return prompt
    if isinstance(prompt, list | tuple):
        return [part if isinstance(part, str) else token_list([part], "prompt")[0] for part in prompt]
    return token_list(prompt, "prompt")


def _n_tokens(prompt: Any, tokenizer: Tokenizer) -> int:
    parts = [prompt] if isinstance(prompt, str) else prompt
    return sum(len(tokenizer.tokenize(part)) if isinstance(part, str) else 1 for part in parts)


def _text_of(prompt: Any, tokenizer: Tokenizer) -> str:
    if isinstance(prompt, Mapping):
        return str(prompt.get("prompt_string", ""))
    if isinstance(prompt, str):
        return prompt
    groups = itertools.groupby(prompt, lambda part: isinstance(part, str))
    return "".join("".join(parts) if is_text else tokenizer.detokenize(list(parts)) for is_text, parts in groups)
