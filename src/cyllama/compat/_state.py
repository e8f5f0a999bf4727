"""Saved states."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

__all__ = ["LlamaState", "slot_tokens"]

Origin = Literal["slot", "context"]
HEAD = struct.Struct("<I")
FILE_HEAD = struct.Struct("<3I")  # magic, version, number of words before the state
MARKER = -1


@dataclass(frozen=True)
class LlamaState:
    """What `Llama.save_state` returns.

    Attributes
    ----------
    input_ids : ndarray of int32
        The evaluated tokens.
    scores : ndarray of float32
        The logits after the last token; empty if they are not part of the state.
    llama_state : bytes
        The state of the engine.
    seed : int or None
    origin : str
        ``"slot"``: the prompt cache of a completion or a chat. ``"context"``: that of `eval` and `generate`.
    """

    input_ids: npt.NDArray[np.intc]
    scores: npt.NDArray[np.single]
    llama_state: bytes
    seed: int | None
    origin: Origin

    @property
    def n_tokens(self) -> int:
        """The number of evaluated tokens."""
        return len(self.input_ids)

    @property
    def llama_state_size(self) -> int:
        """The number of bytes of the engine's state."""
        return len(self.llama_state)

    def to_bytes(self) -> bytes:
        """Return the state as bytes."""
        counts = {"seed": self.seed, "origin": self.origin, "n_tokens": self.n_tokens, "n_scores": len(self.scores)}
        head = json.dumps(counts).encode()
        return HEAD.pack(len(head)) + head + self.input_ids.tobytes() + self.scores.tobytes() + self.llama_state

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Return the state of `to_bytes`."""
        at = HEAD.size + HEAD.unpack_from(data)[0]
        counts = json.loads(data[HEAD.size : at])
        tokens = np.frombuffer(data, np.intc, counts["n_tokens"], at)
        at += tokens.nbytes
        scores = np.frombuffer(data, np.single, counts["n_scores"], at)
        return cls(tokens, scores, data[at + scores.nbytes :], counts["seed"], counts["origin"])


def slot_tokens(data: bytes) -> npt.NDArray[np.intc]:
    """Return the tokens in a file of `LLM.save_state`. Source: ``server_tokens::serialize``, server-common.cpp."""
    words = np.frombuffer(data, np.intc, FILE_HEAD.unpack_from(data)[2], FILE_HEAD.size)
    if not len(words) or words[0] != MARKER:
        return words
    _, _, count = words[:3]  # marker, version, number of tokens
    return words[3 : 3 + count]
