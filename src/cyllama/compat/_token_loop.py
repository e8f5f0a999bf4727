"""Generate token by token, with Python functions that change the logits or end the text."""

from __future__ import annotations

import codecs
import difflib
import os
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cyllama.errors import ContextFullError
from cyllama.llama import LlamaBatch, LlamaContext, LlamaModel, LlamaSampler, TokenDataArray
from cyllama.llama.params import LlamaContextParams

__all__ = ["TokenLoop"]

LAST_TOKENS = 64  # for penalties
MIROSTAT_TOKENS = 100
DEFAULTS: dict[str, Any] = {
    "temperature": 0.8,
    "top_k": 40,
    "top_p": 0.95,
    "min_p": 0.05,
    "typical_p": 1.0,
    "repeat_penalty": 1.0,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
    "mirostat": 0,
    "mirostat_tau": 5.0,
    "mirostat_eta": 0.1,
}
OTHERS = ("seed", "grammar", "logit_bias", "max_tokens", "stop")

Logits = npt.NDArray[np.single]
Processor = Callable[[npt.NDArray[np.intc], Logits], Logits]
Criterion = Callable[[npt.NDArray[np.intc], Logits], bool]


class TokenLoop:
    """A model and one sequence of tokens.

    Parameters
    ----------
    path : str or path
    n_ctx, n_batch : int
    n_threads : int, optional
    """

    def __init__(
        self, path: str | os.PathLike[str], *, n_ctx: int = 0, n_batch: int = 512, n_threads: int | None = None
    ) -> None:
        self.model = LlamaModel(path)
        params = LlamaContextParams(n_ctx=n_ctx, n_batch=n_batch, n_threads=n_threads, n_threads_batch=n_threads)
        self.context = LlamaContext(self.model, params)
        self.tokens: list[int] = []
        self._logits: Logits | None = None  # of the last token of a loaded state, which does not contain them

    def reset(self) -> None:
        """Remove all tokens."""
        self.context.memory.clear()
        self.tokens.clear()
        self._logits = None

    def eval(self, tokens: Sequence[int]) -> None:
        """Evaluate the next tokens.

        Raises
        ------
        ContextFullError
        """
        if len(self.tokens) + len(tokens) > self.context.n_ctx():
            raise ContextFullError(
                f"{len(self.tokens)} + {len(tokens)} tokens, expected at most {self.context.n_ctx()} (n_ctx)",
                engine="llama",
            )
        self._logits = None
        step = self.context.n_batch()
        for i in range(0, len(tokens), step):
            part = [int(token) for token in tokens[i : i + step]]
            self.context.decode(LlamaBatch.from_tokens(part, len(self.tokens)))
            self.tokens += part

    def logits(self) -> Logits:
        """Return a copy of the logits after the last token, shape (n_vocab,)."""
        return np.array(self.context.get_logits_ith(-1) if self._logits is None else self._logits, np.single)

    def sampler(self, fields: Mapping[str, Any]) -> LlamaSampler:
        """Return a sampler chain for the fields of a request; penalties include the evaluated tokens.

        Parameters
        ----------
        fields : mapping
            Those of `DEFAULTS`, ``logit_bias``, ``grammar``, ``seed``; ``max_tokens`` and ``stop`` are ignored.

        Raises
        ------
        TypeError
            A field does not exist; the message names the nearest.
        """
        for name in fields:
            if name not in DEFAULTS and name not in OTHERS:
                near = difflib.get_close_matches(name, [*DEFAULTS, *OTHERS], 1)
                raise TypeError(f"there is no argument {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        chosen = DEFAULTS | {name: value for name, value in fields.items() if value is not None}
        vocab, seed = self.model.vocab, fields.get("seed")
        chain = LlamaSampler()
        if fields.get("logit_bias"):
            chain.add_logit_bias(len(vocab), dict(fields["logit_bias"]))
        penalties = (chosen[name] for name in ("repeat_penalty", "frequency_penalty", "presence_penalty"))
        chain.add_penalties(len(vocab), LAST_TOKENS, *penalties)
        for token in self.tokens[-LAST_TOKENS:]:
            chain.accept(token)
        if fields.get("grammar"):
            chain.add_grammar(vocab, fields["grammar"])
        if chosen["temperature"] <= 0:
            chain.add_greedy()
        elif chosen["mirostat"]:
            chain.add_temp(chosen["temperature"])
            tau, eta = chosen["mirostat_tau"], chosen["mirostat_eta"]
            if chosen["mirostat"] == 1:
                chain.add_mirostat(len(vocab), seed, tau, eta, MIROSTAT_TOKENS)
            else:
                chain.add_mirostat_v2(seed, tau, eta)
        else:
            chain.add_top_k(chosen["top_k"])
            chain.add_typical(chosen["typical_p"])
            chain.add_top_p(chosen["top_p"])
            chain.add_min_p(chosen["min_p"])
            chain.add_temp(chosen["temperature"])
            chain.add_dist(seed)
        return chain

    def sample_from(self, chain: LlamaSampler, logits: Logits) -> int:
        """Sample a token from logits."""
        array: Any = TokenDataArray(np.arange(len(logits), dtype=np.int32), logits)
        chain.apply(array)
        token = int(array.id[array.selected])
        chain.accept(token)
        return token

    def sample(self, fields: Mapping[str, Any]) -> int:
        """Sample the next token."""
        return self.sample_from(self.sampler(fields), self.logits())

    def generate(
        self,
        tokens: Sequence[int],
        fields: Mapping[str, Any],
        processors: Sequence[Processor] = (),
        criteria: Sequence[Criterion] = (),
    ) -> Iterator[int]:
        """Evaluate tokens, then sample, yield and evaluate the next one until a criterion is true."""
        self.eval(tokens)
        chain = self.sampler(fields)
        while True:
            logits, so_far = self.logits(), np.array(self.tokens, np.intc)
            if any(criterion(so_far, logits) for criterion in criteria):
                return
            for processor in processors:
                logits = np.ascontiguousarray(processor(so_far, logits), np.single)
            token = self.sample_from(chain, logits)
            yield token
            self.eval([token])

    def complete(
        self,
        prompt: str | Sequence[int],
        fields: Mapping[str, Any],
        *,
        echo: bool = False,
        processors: Sequence[Processor] = (),
        criteria: Sequence[Criterion] = (),
    ) -> dict[str, Any]:
        """Continue a text; return a dict in OpenAI's form."""
        vocab = self.model.vocab
        given = vocab.tokenize(prompt, True, True) if isinstance(prompt, str) else [int(token) for token in prompt]
        self.reset()
        most = fields.get("max_tokens")
        room = self.context.n_ctx() - len(given)
        most = room if most is None or most < 0 else min(most, room)
        count, text, reason = 0, "", "length" if most <= 0 else "stop"  # also if a criterion ends it
        words = fields.get("stop") or ()
        longest, decoder = max(map(len, words), default=0), codecs.getincrementaldecoder("utf-8")("replace")
        for token in self.generate(given, fields, processors, criteria) if most > 0 else ():
            if self.model.token_is_eog(token):
                break
            count += 1
            known = len(text)
            text += decoder.decode(vocab.token_to_bytes(token))
            start = max(0, known - longest + 1)
            ends = [at for at in (text.find(word, start) for word in words) if at >= 0]
            if ends:
                text = text[: min(ends)]
                break
            if count == most:
                reason = "length"
                break
        text += decoder.decode(b"", True)
        before = vocab.detokenize(given, True, True) if echo else ""
        usage = {"prompt_tokens": len(given), "completion_tokens": count, "total_tokens": len(given) + count}
        return {
            "id": f"cmpl-{time.time_ns():x}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": self.model.desc,
            "choices": [{"index": 0, "text": before + text, "logprobs": None, "finish_reason": reason}],
            "usage": usage,
        }

    def save(self) -> bytes:
        """Return the tokens, the state of the context, and the logits after the last token."""
        logits = self.logits() if self.tokens else np.empty(0, np.single)
        head = struct.pack(f"<II{len(self.tokens)}i", len(self.tokens), len(logits), *self.tokens)
        return head + logits.tobytes() + bytes(self.context.state.get_data())

    def load(self, data: bytes) -> None:
        """Restore a state of `save`."""
        n_tokens, n_logits = struct.unpack_from("<II", data)
        at = 8 + 4 * n_tokens
        self.context.state.set_data(data[at + 4 * n_logits :])
        self.tokens = list(struct.unpack_from(f"<{n_tokens}i", data, 8))
        self._logits = np.frombuffer(data, np.single, n_logits, at).copy() if n_logits else None

    def close(self) -> None:
        """Free the context and the model."""
        self.context.close()
        self.model.close()
