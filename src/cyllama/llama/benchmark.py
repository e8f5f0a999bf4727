"""Measure the perplexity and the speed of a model, as llama-perplexity and llama-bench do."""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cyllama import models
from cyllama._cancel import Cancel
from cyllama.llama._batch import LlamaBatch
from cyllama.llama._context import LlamaContext
from cyllama.llama._model import LlamaModel
from cyllama.llama.params import LlamaContextParams, LlamaModelParams

__all__ = ["BenchResult", "Perplexity", "bench", "perplexity"]

Model = str | os.PathLike[str] | LlamaModel


@dataclass(frozen=True)
class Perplexity:
    """The result of `perplexity`.

    Attributes
    ----------
    value, error : float
        The perplexity, and its standard error.
    n_chunks, n_tokens : int
        Windows of the text, and tokens that were evaluated.
    """

    value: float
    error: float
    n_chunks: int
    n_tokens: int


def _loaded(model: str | os.PathLike[str], params: LlamaModelParams | None, cancel: Cancel | None) -> LlamaModel:
    path = models.resolve(model)
    with models.load_errors(path, "llama"):
        return LlamaModel(path, params, cancel=cancel)


def perplexity(
    model: Model,
    text: str,
    *,
    n_ctx: int = 512,
    n_batch: int | None = None,
    n_threads: int | None = None,
    max_chunks: int | None = None,
    on_chunk: Callable[[int, int, float], object] | None = None,
    cancel: Cancel | None = None,
) -> Perplexity:
    """Return the perplexity of a text: the exponential of the mean negative log-likelihood of its tokens.

    Parameters
    ----------
    model : str, path or LlamaModel
    text : str
        At least twice `n_ctx` tokens.
    n_ctx : int
        Tokens of a window; those of its second half are evaluated.
    n_batch, n_threads : int, optional
    max_chunks : int, optional
        The most windows.
    on_chunk : callable, optional
        Called with the windows done, all windows, and the perplexity so far.
    cancel : Cancel, optional

    Returns
    -------
    Perplexity

    Raises
    ------
    ValueError
        The text is too short.
    CancelledError

    Notes
    -----
    Releases the GIL while computing. Source: ``perplexity``, tools/perplexity/perplexity.cpp, with its defaults.
    """
    if n_ctx < 4:
        raise ValueError(f"n_ctx is {n_ctx}, expected 4 or more")
    own = not isinstance(model, LlamaModel)
    loaded = model if isinstance(model, LlamaModel) else _loaded(model, None, cancel)
    try:
        vocab = loaded.vocab
        tokens = vocab.tokenize(text, True, False)
        if len(tokens) < 2 * n_ctx:
            raise ValueError(f"the text has {len(tokens)} tokens, expected {2 * n_ctx} (twice n_ctx) or more")
        count = len(tokens) // n_ctx if max_chunks is None else min(max_chunks, len(tokens) // n_ctx)
        params = LlamaContextParams(
            n_ctx=n_ctx, n_batch=min(n_batch or n_ctx, n_ctx), n_threads=n_threads, n_threads_batch=n_threads
        )
        every: list[np.ndarray[Any, Any]] = []
        with LlamaContext(loaded, params) as context:
            for i in range(count):
                window = tokens[i * n_ctx : (i + 1) * n_ctx]
                given = [vocab.bos, *window[1:]] if vocab.add_bos and vocab.bos is not None else window
                every.append(_negative_log_likelihood(context, given, window, cancel))
                if on_chunk is not None:
                    on_chunk(i + 1, count, math.exp(float(np.concatenate(every).mean())))
        found = np.concatenate(every)
        value = math.exp(float(found.mean()))
        error = float(found.std() / math.sqrt(len(found) - 1)) * value
        return Perplexity(value, error, count, len(found))
    finally:
        if own:
            loaded.close()


def _negative_log_likelihood(
    context: LlamaContext, given: list[int], window: list[int], cancel: Cancel | None
) -> np.ndarray[Any, Any]:
    """Return the values of the second half of a window, shape (n_ctx - n_ctx // 2 - 1,)."""
    context.memory.clear()
    first, step = len(given) // 2, context.n_batch()
    parts = []
    for start in range(0, len(given), step):
        stop = min(start + step, len(given))
        batch = LlamaBatch(n_tokens=stop - start)
        for i in range(start, stop):
            batch.add(given[i], i, [0], first <= i < len(given) - 1)
        context.decode(batch, cancel=cancel)
        wanted = [window[i + 1] for i in range(max(start, first), min(stop, len(given) - 1))]
        if wanted:
            logits = np.asarray(context.get_logits(), np.float32)
            top = logits.max(1, keepdims=True)
            sums = np.log(np.exp(logits - top).sum(1, dtype=np.float64))
            parts.append(sums - (logits[np.arange(len(wanted)), wanted] - top[:, 0]))
    return np.concatenate(parts)


@dataclass(frozen=True)
class BenchResult:
    """The result of one test of `bench`.

    Attributes
    ----------
    name : str
        ``"pp512"``: a prompt of 512 tokens; ``"tg128"``: 128 tokens one by one; ``"@ d4096"`` is appended after
        4,096 others.
    speeds : tuple of float
        Tokens per second, for each repetition.
    """

    name: str
    speeds: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean in tokens per second."""
        return statistics.fmean(self.speeds)

    @property
    def deviation(self) -> float:
        """The standard deviation of the repetitions."""
        return statistics.stdev(self.speeds) if len(self.speeds) > 1 else 0.0


def bench(
    model: Model,
    *,
    n_prompt: int = 512,
    n_gen: int = 128,
    n_depth: int = 0,
    repetitions: int = 5,
    n_threads: int | None = None,
    params: LlamaContextParams | None = None,
    model_params: LlamaModelParams | None = None,
    on_result: Callable[[BenchResult], object] | None = None,
    cancel: Cancel | None = None,
) -> list[BenchResult]:
    """Measure the speed of a model.

    Parameters
    ----------
    model : str, path or LlamaModel
    n_prompt, n_gen : int
        Tokens of the prompt, and tokens that are computed one by one; 0 omits the test.
    n_depth : int
        Tokens before them, which are not measured.
    repetitions : int
    n_threads : int, optional
    params : LlamaContextParams, optional
        Parameters of the context; its length and threads are replaced.
    model_params : LlamaModelParams, optional
    on_result : callable, optional
        Called with each `BenchResult`.
    cancel : Cancel, optional

    Returns
    -------
    list of BenchResult

    Raises
    ------
    ValueError, CancelledError

    Notes
    -----
    Releases the GIL while computing. Random tokens, one run to warm up, no sampling. Source: the tests of
    tools/llama-bench/llama-bench.cpp.
    """
    for name, value in (("n_prompt", n_prompt), ("n_gen", n_gen), ("n_depth", n_depth)):
        if value < 0:
            raise ValueError(f"{name} is {value}, expected 0 or more")
    if repetitions < 1 or n_prompt + n_gen == 0:
        raise ValueError(f"repetitions is {repetitions} and n_prompt + n_gen {n_prompt + n_gen}, expected 1 or more")
    own = not isinstance(model, LlamaModel)
    loaded = model if isinstance(model, LlamaModel) else _loaded(model, model_params, cancel)
    try:
        chosen = {} if params is None else params.to_dict()
        chosen |= {"n_ctx": n_depth + max(n_prompt, n_gen), "n_threads": n_threads, "n_threads_batch": n_threads}
        tests = [("pp", n_prompt, chosen.get("n_batch", 2048)), ("tg", n_gen, 1)]
        found = []
        with LlamaContext(loaded, LlamaContextParams(**chosen)) as context:
            runner = _Runner(context, len(loaded.vocab), n_depth, cancel)
            for kind, count, step in tests:
                if count:
                    name = f"{kind}{count}" + (f" @ d{n_depth}" if n_depth else "")
                    runner.seconds(min(count, 32), step)
                    speeds = tuple(count / runner.seconds(count, step) for _ in range(repetitions))
                    found.append(BenchResult(name, speeds))
                    if on_result is not None:
                        on_result(found[-1])
        return found
    finally:
        if own:
            loaded.close()


class _Runner:
    """Compute random tokens of a fixed seed."""

    def __init__(self, context: LlamaContext, n_vocab: int, n_depth: int, cancel: Cancel | None) -> None:
        self.context, self.n_depth, self.cancel = context, n_depth, cancel
        self.tokens = np.random.default_rng(0).integers(0, n_vocab, n_depth + context.n_ctx()).tolist()

    def seconds(self, count: int, step: int) -> float:
        """Return the time for `count` tokens, `step` at once, after `n_depth` others."""
        self.context.memory.clear()
        self._compute(0, self.n_depth, self.context.n_batch())
        start = time.perf_counter()
        self._compute(self.n_depth, self.n_depth + count, min(step, self.context.n_batch()))
        return time.perf_counter() - start

    def _compute(self, begin: int, end: int, step: int) -> None:
        for i in range(begin, end, step):
            self.context.decode(LlamaBatch.from_tokens(self.tokens[i : min(i + step, end)], i), cancel=self.cancel)
        self.context.synchronize()
