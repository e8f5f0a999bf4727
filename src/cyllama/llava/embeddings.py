"""Embeddings of pictures and sounds that were encoded before, by their content."""

from __future__ import annotations

import collections
import hashlib
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cyllama.llava._chunks import InputChunk
from cyllama.llava._enums import ChunkType

__all__ = ["EmbeddingCache", "chunk_keys", "content_id"]

Embeddings = npt.NDArray[np.float32]


def content_id(values: npt.NDArray[Any]) -> str:
    """A name for pixels or samples: the hash of what they are."""
    digest = hashlib.sha256(f"{values.dtype.str}{values.shape}".encode())
    digest.update(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def chunk_keys(chunks: Sequence[InputChunk], pictures: Sequence[str]) -> list[Hashable]:
    """What tells each chunk of a prompt from others: its tokens, or the content and the part of it.

    Parameters
    ----------
    chunks : sequence of InputChunk
    pictures : sequence of str
        The content of each picture and sound of the prompt; one may come several times.
    """
    times = collections.Counter(pictures)
    totals = collections.Counter(chunk.id for chunk in chunks if chunk.type != ChunkType.TEXT)
    seen: collections.Counter[str | None] = collections.Counter()
    keys: list[Hashable] = []
    for chunk in chunks:
        if chunk.type == ChunkType.TEXT:
            keys.append(("text", *chunk.tokens))
            continue
        name = chunk.id
        parts = max(1, totals[name] // max(1, times[name or ""]))
        keys.append((name, seen[name] % parts, chunk.n_tokens))
        seen[name] += 1
    return keys


class EmbeddingCache:
    """Keeps the embeddings that were used last.

    Parameters
    ----------
    max_bytes : int
        Of all that is kept; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 0:
            raise ValueError(f"cache_bytes is {max_bytes!r}, expected a number of bytes, 0 or more")
        self.max_bytes = max_bytes
        self._rows: collections.OrderedDict[Hashable, Embeddings] = collections.OrderedDict()

    @property
    def n_bytes(self) -> int:
        """Bytes of what is kept."""
        return sum(rows.nbytes for rows in self._rows.values())

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, key: Hashable) -> Embeddings | None:
        """The embeddings under this key; they count as used."""
        rows = self._rows.get(key)
        if rows is not None:
            self._rows.move_to_end(key)
        return rows

    def put(self, key: Hashable, rows: Embeddings) -> None:
        """Keep embeddings; those that were not used for the longest time go."""
        self._rows[key] = rows
        self._rows.move_to_end(key)
        while self._rows and self.n_bytes > self.max_bytes:
            self._rows.popitem(last=False)

    def clear(self) -> None:
        """Forget all."""
        self._rows.clear()
