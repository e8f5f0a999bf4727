"""The calls of `Llama` for tokens and for states."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, Unpack

import numpy as np
import numpy.typing as npt

from cyllama.compat._argument_types import SampleArguments
from cyllama.compat._arguments import LoadArguments, loop_fields
from cyllama.compat._state import LlamaState, slot_tokens
from cyllama.compat._token_loop import Criterion, Processor, TokenLoop
from cyllama.compat._vocabulary import Tokens, Vocabulary
from cyllama.compat.llama_cache import BaseLlamaCache, longest_prefix
from cyllama.errors import UnsupportedError
from cyllama.llama import LLM, LlamaModel

__all__ = ["LogitsProcessorList", "StoppingCriteriaList", "TokenCalls"]

T = TypeVar("T")


class LogitsProcessorList(list[Processor]):
    """Functions that change the logits, in order."""


class StoppingCriteriaList(list[Criterion]):
    """Functions that end a text if one of them returns true."""


class TokenCalls(Vocabulary):
    """The evaluation of tokens, and states.

    Tokens are evaluated in a context of their own, which is created on first use; the weights are shared.
    """

    _arguments: LoadArguments
    _llm: LLM | None
    _loop: TokenLoop | None = None
    _seed: int | None
    _cache: Any = None
    _pending: Tokens | None = None  # the tokens of a restored state that the loop has not evaluated yet
    _uses_slot = False  # whether the last text came from a slot
    _slot_ids: Sequence[int] = ()  # the tokens of the last state that was saved or restored

    @property
    def llm(self) -> LLM:
        """The model.

        Raises
        ------
        UnsupportedError
            The vocabulary alone was loaded.
        """
        if self._llm is None:
            raise UnsupportedError("the model was loaded with vocab_only=True")
        return self._llm

    def n_ctx(self) -> int:
        """Return the number of tokens of the context."""
        return int(self.llm.properties.default_generation_settings.n_ctx)

    def _loop_of(self) -> TokenLoop:
        """Return the token loop with the tokens of the restored state."""
        self._uses_slot = False
        if self._loop is None:
            a = self._arguments
            self._loop = TokenLoop(
                LlamaModel(self._file, a.model_params()),
                a.context_params(self.n_ctx()),
                last_n=a.last_n_tokens_size,
                keep_logits=a.logits_all,
                lora=None if a.lora_path is None else (a.lora_path, a.lora_scale),
            )
        if self._pending is not None:
            tokens, self._pending = self._pending, None
            self._loop.truncate(0)
            self._loop.eval(tokens)
        return self._loop

    @property
    def n_tokens(self) -> int:
        """The number of evaluated tokens; a smaller number removes the last ones."""
        return len(self._loop_of().tokens)

    @n_tokens.setter
    def n_tokens(self, value: int) -> None:
        loop = self._loop_of()
        if not 0 <= value <= len(loop.tokens):
            raise ValueError(f"n_tokens is {value}, expected 0 to {len(loop.tokens)}")
        if not loop.truncate(value):
            raise UnsupportedError("the memory of the model cannot be cut")

    @property
    def input_ids(self) -> npt.NDArray[np.intc]:
        """The evaluated tokens."""
        return np.array(self._loop_of().tokens, np.intc)

    @property
    def eval_tokens(self) -> deque[int]:
        """The evaluated tokens."""
        return deque(self._loop_of().tokens, self.n_ctx())

    @property
    def scores(self) -> npt.NDArray[np.single]:
        """The logits after each evaluated token with ``logits_all=True``, else after the last one."""
        return self._loop_of().scores()

    @property
    def eval_logits(self) -> deque[list[float]]:
        """The rows of `scores` as lists."""
        return deque(self.scores.tolist())

    def reset(self) -> None:
        """Remove the evaluated tokens."""
        self._loop_of().truncate(0)

    def eval(self, tokens: Sequence[int]) -> None:
        """Evaluate the next tokens."""
        self._loop_of().eval(tokens)

    def sample(
        self,
        top_k: int = 40,
        top_p: float = 0.95,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        temp: float = 0.8,
        repeat_penalty: float = 1.0,
        *,
        logits_processor: Sequence[Processor] | None = None,
        idx: int | None = None,
        **fields: Unpack[SampleArguments],
    ) -> int:
        """Choose the next token, or the one after the token `idx`."""
        given = _fields(locals())
        return self._loop_of().sample(loop_fields(given, self._seed), logits_processor or (), idx)

    def generate(
        self,
        tokens: Sequence[int],
        top_k: int = 40,
        top_p: float = 0.95,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        temp: float = 0.8,
        repeat_penalty: float = 1.0,
        reset: bool = True,
        *,
        logits_processor: Sequence[Processor] | None = None,
        stopping_criteria: Sequence[Criterion] | None = None,
        **fields: Unpack[SampleArguments],
    ) -> Generator[int, Sequence[int] | None, None]:
        """Generate tokens without a limit; further arguments as of `sample`.

        With `reset`, the evaluated tokens are replaced. Tokens that are sent to the generator are evaluated as well.
        """
        given = _fields(locals())
        chosen = loop_fields(given, self._seed)
        yield from self._loop_of().generate(
            tokens, chosen, logits_processor or (), stopping_criteria or (), reset=reset
        )

    def save_state(self) -> LlamaState:
        """Return the state after the last completion or chat, or after `eval` or `generate`."""
        if not self._uses_slot:
            return self._loop_of().save(self._seed)
        with tempfile.TemporaryDirectory(prefix="cyllama-") as folder:
            path = Path(folder, "state")
            self.llm.save_state(path)
            data = path.read_bytes()
        tokens = slot_tokens(data).copy()
        return LlamaState(tokens, np.empty(0, np.single), data, self._seed, "slot")

    def load_state(self, state: LlamaState) -> None:
        """Restore a state of `save_state`.

        Raises
        ------
        TypeError, ValueError
            It is not a state of this model.
        """
        if not isinstance(state, LlamaState):
            raise TypeError(f"state is {state!r:.100}, expected a LlamaState, as save_state returns it")
        self._seed = state.seed
        if state.origin == "context":
            self._pending = None
            self._loop_of().load(state)
            return
        with tempfile.TemporaryDirectory(prefix="cyllama-") as folder:
            path = Path(folder, "state")
            path.write_bytes(state.llama_state)
            self.llm.load_state(path)
        self._uses_slot, self._pending = True, state.input_ids.tolist()
        self._slot_ids = self._pending

    def set_cache(self, cache: BaseLlamaCache | None) -> None:
        """Set where the states of completions and chats are kept; None: in the prompt cache of the model only.

        Raises
        ------
        UnsupportedError
            The model accepts images or audio.
        """
        if cache is not None and (self.llm.supports("vision") or self.llm.supports("audio")):
            raise UnsupportedError("set_cache: the model accepts media, whose states are not kept")
        self._cache = cache

    def _restore_prefix(self, tokens: Sequence[int]) -> None:
        """Restore the cached state with the longest common start, if the slot has a shorter one."""
        self._pending = None
        self._uses_slot = True
        if self._cache is None:
            return
        try:
            state = self._cache[tokens]
        except KeyError:
            return
        if longest_prefix(state.input_ids.tolist(), tokens) > longest_prefix(self._slot_ids, tokens):
            self.load_state(state)

    def _keep_state(self) -> None:
        """Add the state of the slot to the cache."""
        if self._cache is not None:
            state = self.save_state()
            self._slot_ids = state.input_ids.tolist()
            self._cache[self._slot_ids] = state

    def _kept(self, chunks: Iterator[T]) -> Iterator[T]:
        """Yield the chunks of a stream, and then keep its state."""
        yield from chunks
        self._keep_state()

    def set_seed(self, seed: int) -> None:
        """Set the seed of the calls without one."""
        self._seed = seed

    def close(self) -> None:
        """Free the model."""
        if self._llm is not None:
            self._llm.close()
        if self._loop is not None:
            self._loop.close()
        self._vocabulary.close()


def _fields(given: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call that choose a token."""
    own = ("self", "tokens", "reset", "logits_processor", "stopping_criteria", "idx", "fields")
    further: dict[str, Any] = given["fields"]
    return {name: value for name, value in given.items() if name not in own} | further
