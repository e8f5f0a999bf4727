"""Completions in the form of llama-cpp-python."""

from __future__ import annotations

import codecs
import time
import uuid
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cyllama.compat._text_parts import Ending, Part, Row
from cyllama.llama import Completion, CompletionChunk, Stream

__all__ = ["CompletionShape", "infill_response", "usage_of"]

Response = dict[str, Any]


@dataclass
class CompletionShape:
    """The form of the responses to one call.

    Attributes
    ----------
    model : str
        The name of the model in the responses.
    before : str
        The prompt, if it is part of the text.
    given : sequence of dict
        The rows of the prompt's tokens, if they are part of the logprobs.
    n_probs : int, optional
        The number of alternatives of a token; None for no logprobs.
    start : int
        Characters before the first token.
    """

    model: str
    before: str = ""
    given: Sequence[Row] = ()
    n_probs: int | None = None
    start: int = 0
    _head: Response = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._head = {
            "id": f"cmpl-{uuid.uuid4()}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": self.model,
        }
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = self.start

    def _choice(self, text: str, rows: Sequence[Row] | None, finish_reason: str | None) -> Response:
        logprobs = None if rows is None or self.n_probs is None else self.logprobs(rows, self.n_probs)
        return {"text": text, "index": 0, "logprobs": logprobs, "finish_reason": finish_reason}

    def logprobs(self, rows: Iterable[Mapping[str, Any]], n_probs: int) -> Response:
        """Return rows in the form of OpenAI's first API; the first token of an echoed prompt has no logprob."""
        found: Response = {"tokens": [], "text_offset": [], "token_logprobs": [], "top_logprobs": []}
        for row in rows:
            found["tokens"].append(row["token"])
            found["text_offset"].append(self._offset)
            found["token_logprobs"].append(row["logprob"])
            tops = {top["token"]: top["logprob"] for top in (row.get("top_logprobs") or ())[:n_probs]}
            found["top_logprobs"].append(None if row["logprob"] is None else tops | {row["token"]: row["logprob"]})
            raw = row.get("bytes")
            self._offset += len(row["token"] if raw is None else self._decoder.decode(bytes(raw)))
        return found

    def response(self, completion: Completion) -> Response:
        """Return the response for one of `cyllama.LLM`."""
        data = completion.to_dict()
        (choice,) = data["choices"]
        rows = [*self.given, *((choice.get("logprobs") or {}).get("content") or ())]
        made = self._choice(self.before + choice["text"], rows, choice["finish_reason"])
        return {**data, **self._head, "choices": [made]}

    def chunks(self, stream: Stream[CompletionChunk, Completion]) -> Iterator[Response]:
        """Yield the chunks for those of `cyllama.LLM`."""
        with stream:
            yield from self._echo()
            for chunk in stream:
                data = chunk.to_dict()
                for choice in data["choices"]:
                    rows = (choice.get("logprobs") or {}).get("content")
                    made = self._choice(choice["text"], rows, choice["finish_reason"])
                    yield {**data, **self._head, "choices": [made]}

    def joined(self, parts: Generator[Part, None, Ending], n_prompt: int) -> Response:
        """Return the response for parts of a text."""
        texts, rows = [self.before], list(self.given)
        while True:
            try:
                text, more = next(parts)
            except StopIteration as stop:
                ending: Ending = stop.value
                break
            texts.append(text)
            rows += more
        choice = self._choice("".join(texts), rows, ending.finish_reason)
        return {**self._head, "choices": [choice], "usage": usage_of(n_prompt, ending.completion_tokens)}

    def streamed(self, parts: Generator[Part, None, Ending]) -> Iterator[Response]:
        """Yield the chunks for parts of a text."""
        yield from self._echo()
        while True:
            try:
                text, rows = next(parts)
            except StopIteration as stop:
                yield {**self._head, "choices": [self._choice("", None, stop.value.finish_reason)]}
                return
            yield {**self._head, "choices": [self._choice(text, rows, None)]}

    def _echo(self) -> Iterator[Response]:
        if self.before:
            yield {**self._head, "choices": [self._choice(self.before, self.given or None, None)]}


def infill_response(response: Mapping[str, Any], shape: CompletionShape) -> Response:
    """Return the response of `LLM.infill` as a completion."""
    reason = "length" if response["stop_type"] == "limit" else "stop"
    usage = usage_of(response["tokens_evaluated"], response["tokens_predicted"])
    data = {"choices": [{"text": response["content"], "finish_reason": reason}], "usage": usage}
    return shape.response(Completion(data))


def usage_of(prompt: int, completion: int) -> dict[str, int]:
    """Return numbers of tokens in OpenAI's form."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
