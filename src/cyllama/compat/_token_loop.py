"""Generate token by token, with Python functions that change the logits or end the text."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cyllama.compat._state import LlamaState
from cyllama.errors import ContextFullError
from cyllama.llama import (
    LlamaAdapterLora,
    LlamaBatch,
    LlamaContext,
    LlamaContextParams,
    LlamaModel,
    LlamaSampler,
    TokenDataArray,
)

__all__ = ["Criterion", "Logits", "Processor", "TokenLoop"]

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
# Fields of a request that are no defaults of the chain; `text_parts` applies max_tokens and stop.
OTHERS = ("seed", "grammar", "logit_bias", "max_tokens", "stop", "repeat_last_n")

Logits = npt.NDArray[np.single]
Processor = Callable[[npt.NDArray[np.intc], Logits], Logits]
Criterion = Callable[[npt.NDArray[np.intc], Logits], bool]


class TokenLoop:
    """A model and one sequence of tokens.

    Parameters
    ----------
    model : LlamaModel
        Closed with the loop.
    params : LlamaContextParams
    last_n : int
        The number of tokens that the penalties cover.
    keep_logits : bool
        Keep the logits after every token, see `scores`.
    lora : tuple of str and float, optional
        An adapter and its weight.
    """

    def __init__(
        self,
        model: LlamaModel,
        params: LlamaContextParams,
        *,
        last_n: int = 64,
        keep_logits: bool = False,
        lora: tuple[str, float] | None = None,
    ) -> None:
        self.model, self.context = model, LlamaContext(model, params)
        self._adapter = None if lora is None else LlamaAdapterLora(model, lora[0])
        if lora is not None:
            self.context.set_adapters_lora([(self._adapter, lora[1])])
        self.tokens: list[int] = []
        self._last_n, self._keep_logits = last_n, keep_logits
        self._rows: list[Logits] = []  # of all tokens with keep_logits, else of the last one

    def truncate(self, n_tokens: int) -> bool:
        """Keep the first tokens; return whether the memory of the model allows it. The logits are lost."""
        if n_tokens == 0:
            self.context.memory.clear()
        elif not self.context.memory.seq_rm(0, n_tokens, -1):
            return False
        del self.tokens[n_tokens:]
        self._rows = self._rows[:n_tokens] if self._keep_logits else []
        return True

    def eval(self, tokens: Sequence[int]) -> None:
        """Evaluate the next tokens.

        Raises
        ------
        ContextFullError
        """
        for part in self._parts(tokens):
            self._decode(part, self._keep_logits)

    def rows(self, tokens: Sequence[int]) -> Iterator[Logits]:
        """Evaluate the next tokens and yield the logits after each."""
        for part in self._parts(tokens):
            self._decode(part, True)
            for i in range(len(part)):
                yield np.array(self.context.get_logits_ith(i), np.single)

    def _parts(self, tokens: Sequence[int]) -> Iterator[list[int]]:
        """Yield the tokens of each batch."""
        if len(self.tokens) + len(tokens) > self.context.n_ctx():
            raise ContextFullError(
                f"{len(self.tokens)} + {len(tokens)} tokens, expected at most {self.context.n_ctx()} (n_ctx)",
                engine="llama",
            )
        step = self.context.n_batch()
        for i in range(0, len(tokens), step):
            yield [int(token) for token in tokens[i : i + step]]

    def _decode(self, part: list[int], every: bool) -> None:
        self.context.decode(LlamaBatch.from_tokens(part, len(self.tokens), 0, every))
        self.tokens += part
        kept = self._rows if self._keep_logits else []
        indexes = range(len(part)) if self._keep_logits else [-1]
        self._rows = kept + [np.array(self.context.get_logits_ith(i), np.single) for i in indexes]

    def logits(self, index: int | None = None) -> Logits:
        """Return a copy of the logits after the last token, or after that of an index, shape (n_vocab,).

        Raises
        ------
        ValueError
            The logits are not known: nothing was evaluated, or they were not kept.
        """
        at = len(self.tokens) - 1 if index is None else index
        first = len(self.tokens) - len(self._rows)
        if not first <= at < len(self.tokens):
            kept = f"those of {first} to {len(self.tokens) - 1}" if self._rows else "none"
            raise ValueError(f"the logits of token {at} are not known: {kept} are; logits_all=True keeps all of them")
        return self._rows[at - first].copy()

    def scores(self) -> npt.NDArray[np.single]:
        """Return the kept logits, shape (tokens, n_vocab)."""
        return np.array(self._rows, np.single).reshape(len(self._rows), len(self.model.vocab))

    def sampler(self, fields: Mapping[str, Any]) -> LlamaSampler:
        """Return a sampler chain for the fields of a request; penalties include the evaluated tokens.

        Parameters
        ----------
        fields : mapping
            Those of `DEFAULTS` and of `OTHERS`.

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
        vocab, seed, last_n = self.model.vocab, fields.get("seed"), fields.get("repeat_last_n", self._last_n)
        chain = LlamaSampler()
        if fields.get("logit_bias"):
            chain.add_logit_bias(len(vocab), dict(fields["logit_bias"]))
        penalties = (chosen[name] for name in ("repeat_penalty", "frequency_penalty", "presence_penalty"))
        chain.add_penalties(len(vocab), last_n, *penalties)
        for token in self.tokens[-last_n:] if last_n else ():
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

    def sample_from(self, chain: LlamaSampler, logits: Logits, processors: Sequence[Processor] = ()) -> int:
        """Sample a token from logits."""
        so_far = np.array(self.tokens, np.intc)
        for processor in processors:
            logits = np.array(processor(so_far, logits), np.single)
        array: Any = TokenDataArray(np.arange(len(logits), dtype=np.int32), logits)
        chain.apply(array)
        token = int(array.id[array.selected])
        chain.accept(token)
        return token

    def sample(self, fields: Mapping[str, Any], processors: Sequence[Processor] = (), index: int | None = None) -> int:
        """Sample the next token, or the one after the token of an index."""
        return self.sample_from(self.sampler(fields), self.logits(index), processors)

    def generate(
        self,
        tokens: Sequence[int],
        fields: Mapping[str, Any],
        processors: Sequence[Processor] = (),
        criteria: Sequence[Criterion] = (),
        *,
        reset: bool = True,
    ) -> Generator[int, Sequence[int] | None, None]:
        """Evaluate tokens, then sample, yield and evaluate the next one until a criterion is true.

        Tokens that are sent to the generator are evaluated after the one that it yielded. With `reset`, the evaluated
        tokens are replaced; those that both have at the start are kept.
        """
        tokens = list(tokens)
        if reset:
            known = next((i for i, (a, b) in enumerate(zip(self.tokens, tokens, strict=False)) if a != b), None)
            known = min(len(self.tokens), len(tokens)) if known is None else known
            known = max(min(known, len(tokens) - 1), 0)  # the last one again, for its logits
            if not self.truncate(known):
                known = 0
                self.truncate(0)
            tokens = tokens[known:]
        self.eval(tokens)
        chain = self.sampler(fields)
        while True:
            logits = self.logits()
            if any(criterion(np.array(self.tokens, np.intc), logits) for criterion in criteria):
                return
            token = self.sample_from(chain, logits, processors)
            more = yield token
            self.eval([token, *(more or ())])

    def save(self, seed: int | None) -> LlamaState:
        """Return the tokens, the state of the context, and the logits after the last token."""
        logits = self.logits() if self.tokens else np.empty(0, np.single)
        data = bytes(self.context.state.get_data())
        return LlamaState(np.array(self.tokens, np.intc), logits, data, seed, "context")

    def load(self, state: LlamaState) -> None:
        """Restore a state of `save`."""
        self.context.state.set_data(state.llama_state)
        self.tokens = state.input_ids.tolist()
        self._rows = [state.scores.copy()] if len(state.scores) else []

    def close(self) -> None:
        """Free the context and the model."""
        self.context.close()
        if self._adapter is not None:
            self._adapter.close()
        self.model.close()
