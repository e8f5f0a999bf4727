"""A prompt into the context: what is there stays, what is known is not encoded again."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from cyllama.errors import CancelledError
from cyllama.llama._context import LlamaContext
from cyllama.llava._batch import MtmdBatch
from cyllama.llava._chunks import InputChunk, InputChunks
from cyllama.llava._context import MtmdContext
from cyllama.llava._enums import ChunkType
from cyllama.llava.embeddings import EmbeddingCache, Embeddings, chunk_keys

__all__ = ["Evaluator", "Progress", "PromptState"]

Progress = Callable[[int, int], object]


@dataclass
class PromptState:
    """A prompt that was evaluated; times in seconds."""

    n_past: int = 0
    prompt_tokens: int = 0
    media_tokens: int = 0
    reused_tokens: int = 0
    encoded: int = 0
    cached: int = 0
    encode: float = 0.0
    decode: float = 0.0


@dataclass(frozen=True)
class _Kept:
    """A chunk that is in the context."""

    key: Hashable
    n_tokens: int
    n_pos: int


class Evaluator:
    """Evaluates prompts in sequence 0 of one context.

    Parameters
    ----------
    mtmd : MtmdContext
    context : LlamaContext
    cache : EmbeddingCache
    """

    def __init__(self, mtmd: MtmdContext, context: LlamaContext, cache: EmbeddingCache) -> None:
        self._mtmd, self._context, self._cache = mtmd, context, cache
        self._kept: list[_Kept] = []

    def run(
        self, chunks: InputChunks, pictures: Sequence[str], on_progress: Progress | None, cancel: Any
    ) -> PromptState:
        """Evaluate a prompt; its last token has an output. `pictures` as of `chunk_keys`.

        Raises
        ------
        MediaError, DecodeError, ContextFullError, CancelledError
        """
        items = list(chunks)
        try:
            keys = chunk_keys(items, pictures)
            return self._run(items, keys, chunks.n_tokens, on_progress, cancel)
        finally:
            for chunk in items:
                chunk.close()

    def _run(
        self, items: list[InputChunk], keys: list[Hashable], n_tokens: int, on_progress: Progress | None, cancel: Any
    ) -> PromptState:
        state = PromptState(prompt_tokens=n_tokens)
        state.media_tokens = sum(chunk.n_tokens for chunk in items if chunk.type != ChunkType.TEXT)
        first = self._keep_prefix(keys, len(items), state)
        known: dict[int, Embeddings] = {}
        for i in range(first, len(items)):
            _tell(on_progress, state, items[:i])
            if items[i].type != ChunkType.TEXT:
                self._know(items, keys, i, known, state, cancel)
            start = time.perf_counter()
            if i in known:
                state.n_past = self._mtmd.decode_image_chunk(
                    self._context, items[i], known.pop(i), state.n_past, cancel=cancel
                )
            else:
                state.n_past = self._mtmd.eval_chunk_single(
                    self._context, items[i], state.n_past, logits_last=i == len(items) - 1, cancel=cancel
                )
            state.decode += time.perf_counter() - start
            self._kept.append(_Kept(keys[i], items[i].n_tokens, items[i].n_pos))
        _tell(on_progress, state, items)
        return state

    def _keep_prefix(self, keys: list[Hashable], n: int, state: PromptState) -> int:
        """Leave in the context the chunks with which the prompt begins; whole ones, and never the last."""
        same = 0
        while same < min(len(self._kept), n - 1) and self._kept[same].key == keys[same]:
            same += 1
        state.n_past = sum(kept.n_pos for kept in self._kept[:same])
        memory = self._context.memory
        if same == 0 or not memory.seq_rm(0, state.n_past, -1):  # models with a recurrent state keep all or nothing
            memory.clear()
            same, state.n_past = 0, 0
        del self._kept[same:]
        state.reused_tokens = sum(kept.n_tokens for kept in self._kept)
        return same

    def _know(
        self,
        items: list[InputChunk],
        keys: list[Hashable],
        i: int,
        known: dict[int, Embeddings],
        state: PromptState,
        cancel: Any,
    ) -> None:
        """Have the embeddings of chunk `i`: those that are kept, or encoded with those right after it."""
        if i in known:
            return
        rows = self._cache.get(keys[i])
        if rows is not None:
            known[i] = rows
            state.cached += 1
            return
        start = time.perf_counter()
        with MtmdBatch(self._mtmd) as batch:
            together = [i]
            batch.add_chunk(items[i])
            for j in range(i + 1, len(items)):
                if items[j].type == ChunkType.TEXT or self._cache.get(keys[j]) is not None:
                    break
                if not batch.add_chunk(items[j]):
                    break
                together.append(j)
            batch.encode(cancel=cancel)
            for j in together:
                known[j] = batch.get_output_embd(items[j])
                self._cache.put(keys[j], known[j])
        state.encoded += len(together)
        state.encode += time.perf_counter() - start


def _tell(on_progress: Progress | None, state: PromptState, done: list[InputChunk]) -> None:
    if on_progress is None:
        return
    if on_progress(sum(chunk.n_tokens for chunk in done), state.prompt_tokens) is False:
        raise CancelledError("the call was cancelled by on_progress")
