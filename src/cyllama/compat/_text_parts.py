"""The text of a loop of tokens: stop texts, characters of several tokens, and logprobs."""

from __future__ import annotations

import codecs
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cyllama.compat._token_loop import Criterion, Logits, Processor, TokenLoop
from cyllama.llama import LlamaVocab

__all__ = ["Ending", "log_softmax", "logprob_row", "text_parts"]

Row = dict[str, Any]
Part = tuple[str, list[Row]]


@dataclass(frozen=True)
class Ending:
    """The end of a text."""

    finish_reason: str
    completion_tokens: int


def log_softmax(logits: npt.ArrayLike, axis: int = -1) -> npt.NDArray[np.single]:
    """Return the logarithms of the probabilities of logits."""
    given = np.asarray(logits, np.single)
    shifted = given - given.max(axis, keepdims=True)
    found: npt.NDArray[np.single] = shifted - np.log(np.exp(shifted).sum(axis, keepdims=True))
    return found


def logprob_row(vocab: LlamaVocab, logits: Logits, token: int, n_probs: int) -> Row:
    """Return the logprob of a token and of the most likely ones, in the form of chats."""
    values = log_softmax(logits)
    best = np.argsort(-values, kind="stable")[:n_probs]
    return _entry(vocab, token, values[token]) | {"top_logprobs": [_entry(vocab, int(i), values[i]) for i in best]}


def _entry(vocab: LlamaVocab, token: int, logprob: float) -> Row:
    raw = vocab.token_to_bytes(token)
    return {"id": token, "token": raw.decode("utf-8", "replace"), "bytes": list(raw), "logprob": float(logprob)}


class _StopFinder:
    """Hold back text that may become a stop text."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self.found = False
        self._text, self._rows = "", list[tuple[int, Row]]()

    def add(self, text: str, row: Row | None) -> Part:
        """Add the text of a token; return the text that is certain."""
        if row is not None:
            self._rows.append((len(self._text), row))
        self._text += text
        ends = [at for at in (self._text.find(stop) for stop in self._stops) if at >= 0]
        if ends:
            self.found = True
            return self._cut(min(ends))
        held = max((n for stop in self._stops for n in range(1, len(stop)) if self._text.endswith(stop[:n])), default=0)
        return self._cut(len(self._text) - held)

    def rest(self) -> Part:
        """Return the text that was held back; nothing after a stop text."""
        return ("", []) if self.found else (self._text, [row for _, row in self._rows])

    def _cut(self, at: int) -> Part:
        text, rows = self._text[:at], [row for start, row in self._rows if start < at]
        self._rows = [(start - at, row) for start, row in self._rows if start >= at]
        self._text = self._text[at:]
        return text, rows


def text_parts(
    loop: TokenLoop,
    tokens: Sequence[int],
    fields: Mapping[str, Any],
    *,
    n_probs: int | None = None,
    processors: Sequence[Processor] = (),
    criteria: Sequence[Criterion] = (),
) -> Generator[Part, None, Ending]:
    """Continue tokens; yield the text and the rows of its tokens, and return its ending."""
    vocab = loop.model.vocab
    room = loop.context.n_ctx() - len(tokens)
    most = fields.get("max_tokens") or -1
    most = room if most < 0 else min(most, room)
    stops, decoder = _StopFinder(fields.get("stop") or ()), codecs.getincrementaldecoder("utf-8")("replace")
    count, reason = 0, "length" if most <= 0 else "stop"  # also if a criterion ends it
    for token in loop.generate(tokens, fields, processors, criteria) if most > 0 else ():
        if loop.model.token_is_eog(token):
            break
        count += 1
        row = None if n_probs is None else logprob_row(vocab, loop.logits(), token, n_probs)
        part = stops.add(decoder.decode(vocab.token_to_bytes(token)), row)
        if part != ("", []):
            yield part
        if stops.found:
            break
        if count == most:
            reason = "length"
            break
    text, rows = stops.rest()
    yield text + ("" if stops.found else decoder.decode(b"", True)), rows
    return Ending(reason, count)
