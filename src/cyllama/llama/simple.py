"""A completion in one call, as an example of the low-level API."""

from __future__ import annotations

import codecs
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from cyllama._cancel import Cancel
from cyllama.llama._batch import LlamaBatch
from cyllama.llama._context import LlamaContext
from cyllama.llama._model import LlamaModel
from cyllama.llama._sampler import LlamaSampler
from cyllama.llama.params import LlamaContextParams

__all__ = ["SimpleResult", "simple"]


@dataclass(frozen=True)
class SimpleResult:
    """The result of :func:`simple`.

    Attributes
    ----------
    text : str
        The generated text, without the prompt.
    tokens : tuple of int
        Its token ids.
    n_prompt : int
        Tokens of the prompt.
    seconds : float
        Time of the generation, without loading and the prompt.
    """

    text: str
    tokens: tuple[int, ...]
    n_prompt: int
    seconds: float

    @property
    def n_decoded(self) -> int:
        """The number of generated tokens."""
        return len(self.tokens)

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens per second."""
        return self.n_decoded / self.seconds if self.seconds > 0 else 0.0


def simple(
    model: str | os.PathLike[str] | LlamaModel,
    prompt: str,
    n_predict: int = 32,
    *,
    on_piece: Callable[[str], object] | None = None,
    cancel: Cancel | None = None,
) -> SimpleResult:
    """Complete `prompt` greedily.

    Parameters
    ----------
    model : path or LlamaModel
        A GGUF file, or a loaded model.
    prompt : str
        A text, used without a chat template.
    n_predict : int
        The most tokens, 0 or more; the model may end the text earlier.
    on_piece : callable, optional
        Called with the text of each token.
    cancel : Cancel, optional
        Stops the call, as Ctrl-C does.

    Raises
    ------
    ValueError
        An empty prompt (for a model without a beginning-of-sequence token), or a negative `n_predict`.
    CancelledError, ModelLoadError, FileNotFoundError

    Notes
    -----
    Releases the GIL while computing.
    """
    if n_predict < 0:
        raise ValueError(f"n_predict is {n_predict}, expected 0 or more")
    own = not isinstance(model, LlamaModel)
    loaded = LlamaModel(model, cancel=cancel) if not isinstance(model, LlamaModel) else model
    try:
        tokens = loaded.vocab.tokenize(prompt, add_special=True, parse_special=True)
        if not tokens:
            raise ValueError("prompt is empty, and the model has no token to begin a text with")
        params = LlamaContextParams(n_ctx=len(tokens) + n_predict, n_batch=max(len(tokens), 32))
        with LlamaContext(loaded, params) as ctx, LlamaSampler() as sampler:
            sampler.add_greedy()
            return _generate(ctx, sampler, tokens, n_predict, on_piece, cancel)
    finally:
        if own:
            loaded.close()


def _generate(
    ctx: LlamaContext,
    sampler: LlamaSampler,
    tokens: list[int],
    n_predict: int,
    on_piece: Callable[[str], object] | None,
    cancel: Cancel | None,
) -> SimpleResult:
    vocab = ctx.model.vocab
    utf8 = codecs.getincrementaldecoder("utf-8")("replace")  # a character may span several tokens
    batch = LlamaBatch.from_tokens(tokens)
    ctx.decode(batch, cancel=cancel)
    start = time.perf_counter()
    text: list[str] = []
    made: list[int] = []
    while len(made) < n_predict:
        token = sampler.sample(ctx, -1)
        if ctx.model.token_is_eog(token):
            break
        made.append(token)
        text.append(utf8.decode(vocab.token_to_bytes(token)))
        if on_piece is not None:
            on_piece(text[-1])
        if len(made) < n_predict:
            batch.set_batch([token], len(tokens) + len(made) - 1)
            ctx.decode(batch, cancel=cancel)
    text.append(utf8.decode(b"", final=True))
    return SimpleResult("".join(text), tuple(made), len(tokens), time.perf_counter() - start)
