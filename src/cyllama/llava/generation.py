"""The answer, token by token."""

from __future__ import annotations

import codecs
import dataclasses
import difflib
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cyllama.llama._batch import LlamaBatch
from cyllama.llama._common import CommonParams, CommonSampler
from cyllama.llama._context import LlamaContext
from cyllama.llama.fields import check_field, check_limits
from cyllama.llava.answers import Answer, Timings
from cyllama.llava.evaluation import PromptState

__all__ = ["SamplingOptions", "pieces"]

# Our names of upstream's fields.
SAMPLING_FIELDS = {
    "temperature": "temp",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "typical_p": "typ_p",
    "repeat_penalty": "penalty_repeat",
    "frequency_penalty": "penalty_freq",
    "presence_penalty": "penalty_present",
    "seed": "seed",
}


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """How tokens are chosen, and when the answer ends; see `Llava.chat`."""

    max_tokens: int | None = None
    temperature: float = 0.0
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    typical_p: float = 1.0
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> SamplingOptions:
        """The options that were given.

        Raises
        ------
        TypeError
            There is no such option; the nearest is named.
        ValueError
        """
        names = [field.name for field in dataclasses.fields(cls)]
        for name in given:
            if name not in names:
                near = difflib.get_close_matches(name, [*names, "on_progress", "on_text", "cancel", "stream"], 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise TypeError(f"there is no option {name!r}{hint}")
        values = {name: value for name, value in given.items() if value is not None}
        stop = values.pop("stop", ())
        ends = (stop,) if isinstance(stop, str) else tuple(stop) if isinstance(stop, Iterable) else (stop,)
        if not all(isinstance(text, str) and text for text in ends):
            raise ValueError(f"stop is {stop!r}, expected texts")
        check_limits({**values, "stop": ends})
        for name, value in values.items():
            check_field(name, value)
        if values.get("max_tokens", 1) < 1:
            raise ValueError(f"max_tokens is {values['max_tokens']}, expected 1 or more")
        return cls(stop=ends, **values)

    def params(self) -> CommonParams:
        """The same as upstream's programs take it."""
        found = CommonParams()
        for name, field in SAMPLING_FIELDS.items():
            value = getattr(self, name)
            if value is not None:
                found.set_path(f"sampling.{field}", value)
        return found


def _held(text: str, stop: tuple[str, ...]) -> int:
    """How many characters at the end may be the beginning of a stop text."""
    return max(
        (n for word in stop for n in range(1, min(len(word), len(text) + 1)) if text.endswith(word[:n])), default=0
    )


def pieces(
    context: LlamaContext, state: PromptState, options: SamplingOptions, prepared: float, cancel: Any
) -> Iterator[str | Answer]:
    """The pieces of an answer after a prompt, and last the Answer.

    Parameters
    ----------
    context : LlamaContext
        Its last token has an output.
    state : PromptState
    options : SamplingOptions
    prepared : float
        Seconds that went into preparing the prompt.
    cancel : object with ``is_set()``, or None

    Raises
    ------
    DecodeError, CancelledError
    """
    vocab = context.model.vocab
    utf8 = codecs.getincrementaldecoder("utf-8")("replace")  # a character may be spread over several tokens
    room = context.n_ctx() - state.prompt_tokens
    most = room if options.max_tokens is None else min(options.max_tokens, room)
    start, spent = time.perf_counter(), 0.0
    text, shown, n, reason, cut = "", 0, 0, "length", False
    n_past = state.n_past
    with CommonSampler(context.model, options.params()) as sampler, LlamaBatch(n_tokens=1) as batch:
        while n < most:
            token = sampler.sample(context, -1)
            sampler.accept(token)
            if context.model.token_is_eog(token):
                reason = "stop"
                break
            n += 1
            text += utf8.decode(vocab.token_to_bytes(token))
            ends = [at for at in (text.find(word) for word in options.stop) if at >= 0]
            if ends:
                text, reason, cut = text[: min(ends)], "stop", True
                break
            upto = len(text) - _held(text, options.stop)
            if upto > shown:
                spent += time.perf_counter() - start
                yield text[shown:upto]
                start, shown = time.perf_counter(), upto
            if n < most:
                batch.set_batch([token], n_past)
                context.decode(batch, cancel=cancel)
                n_past += 1
    if not cut:
        text += utf8.decode(b"", final=True)
    spent += time.perf_counter() - start
    yield text[shown:]
    timings = Timings(prepare=prepared, encode=state.encode, prompt=state.decode, generate=spent)
    yield Answer(
        text=text,
        finish_reason=reason,
        prompt_tokens=state.prompt_tokens,
        completion_tokens=n,
        media_tokens=state.media_tokens,
        reused_tokens=state.reused_tokens,
        encoded=state.encoded,
        cached=state.cached,
        timings=timings,
    )
