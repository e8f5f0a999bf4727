"""What a model says about pictures and sounds, and how long it took."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

__all__ = ["Answer", "AnswerStream", "Timings"]


@dataclass(frozen=True)
class Timings:
    """Where the time of a call went, in seconds.

    Attributes
    ----------
    prepare : float
        Reading the pictures and sounds, and cutting the prompt into chunks.
    encode : float
        In the encoder; 0 where all embeddings were known.
    prompt : float
        Evaluating the prompt in the language model, embeddings among it.
    generate : float
        Making the answer.
    """

    prepare: float
    encode: float
    prompt: float
    generate: float

    @property
    def total(self) -> float:
        """All of them together."""
        return self.prepare + self.encode + self.prompt + self.generate


@dataclass(frozen=True)
class Answer:
    """An answer.

    Attributes
    ----------
    text : str
    finish_reason : str
        ``"stop"`` (the model ended, or a stop text came) or ``"length"``.
    prompt_tokens, completion_tokens : int
        Tokens of the whole prompt, those of pictures and sounds among them, and of the answer.
    media_tokens : int
        Tokens of pictures and sounds.
    reused_tokens : int
        Tokens of the prompt that were in the context already.
    encoded, cached : int
        Chunks of pictures and sounds that the encoder computed, and whose embeddings were known.
    timings : Timings
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    media_tokens: int
    reused_tokens: int
    encoded: int
    cached: int
    timings: Timings

    def to_dict(self) -> dict[str, Any]:
        """Return all as plain values; ``timings`` with ``total``."""
        found = dataclasses.asdict(self)
        found["timings"]["total"] = self.timings.total
        return found

    def __str__(self) -> str:
        return self.text


class AnswerStream(Iterator[str]):
    """The pieces of an answer, as they come.

    Attributes
    ----------
    answer : Answer or None
        The whole, once the last piece was taken.

    Notes
    -----
    The model is taken until the last piece, or until :meth:`close`.
    """

    def __init__(self, run: Iterator[str | Answer]) -> None:
        self._run = run
        self.answer: Answer | None = None

    def __next__(self) -> str:
        for item in self._run:
            if isinstance(item, Answer):
                self.answer = item
            elif item:
                return item
        raise StopIteration

    def close(self) -> None:
        """Stop, and give the model free."""
        self._run.close()  # type: ignore[attr-defined]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()
