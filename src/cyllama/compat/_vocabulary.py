"""The calls of `Llama` that need the vocabulary and the metadata only."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cyllama import models
from cyllama.compat._text_parts import log_softmax
from cyllama.compat.llama_cache import longest_prefix
from cyllama.llama import LlamaModel, LlamaModelParams

__all__ = ["Tokens", "Vocabulary"]

Tokens = list[int]


class Vocabulary:
    """The tokens and the metadata of a file.

    Parameters
    ----------
    model_path : str or path
    """

    def __init__(self, model_path: str | os.PathLike[str]) -> None:
        self.model_path = os.fspath(model_path)
        self._file = models.resolve(model_path)
        self._vocabulary = LlamaModel(self._file, LlamaModelParams(vocab_only=True))

    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = False) -> Tokens:
        """Return the tokens of a text (UTF-8)."""
        tokens: Tokens = self._vocabulary.vocab.tokenize(text, add_bos, special)
        return tokens

    def detokenize(
        self, tokens: Sequence[int], prev_tokens: Sequence[int] | None = None, special: bool = False
    ) -> bytes:
        """Return the text of tokens (UTF-8)."""
        vocab = self._vocabulary.vocab
        before = list(prev_tokens or ())
        known = len(vocab.detokenize_bytes(before, False, special))
        text: bytes = vocab.detokenize_bytes([*before, *tokens], False, special)[known:]
        begins = not before and bool(tokens) and tokens[0] == vocab.bos
        return text.removeprefix(b" ") if begins else text  # the tokenizer added the space

    def n_embd(self) -> int:
        """Return the width of the model's vectors."""
        return int(self.metadata[f"{self.metadata['general.architecture']}.embedding_length"])

    def n_vocab(self) -> int:
        """Return the number of tokens of the vocabulary."""
        return int(self._vocabulary.vocab.n_tokens)

    def token_bos(self) -> int:
        """Return the token that starts a text, -1 if there is none."""
        return _or_minus_one(self._vocabulary.vocab.bos)

    def token_eos(self) -> int:
        """Return the token that ends a text, -1 if there is none."""
        return _or_minus_one(self._vocabulary.vocab.eos)

    def token_nl(self) -> int:
        """Return the token of a new line, -1 if there is none."""
        return _or_minus_one(self._vocabulary.vocab.nl)

    @staticmethod
    def logits_to_logprobs(logits: npt.ArrayLike, axis: int = -1) -> npt.NDArray[np.single]:
        """Return the logarithms of the probabilities of logits."""
        return log_softmax(logits, axis)

    @staticmethod
    def longest_token_prefix(a: Sequence[int], b: Sequence[int]) -> int:
        """Return the number of equal tokens at the start."""
        return longest_prefix(a, b)

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata of the file."""
        return dict(self._vocabulary.metadata())

    def _prompt_tokens(self, prompt: str | Sequence[int]) -> Tokens:
        """Return the tokens that a completion evaluates for a prompt."""
        if isinstance(prompt, str):
            tokens: Tokens = self._vocabulary.vocab.tokenize(prompt, True, True)
            return tokens
        return [int(token) for token in prompt]

    def _text(self, prompt: str | Sequence[int]) -> str:
        return prompt if isinstance(prompt, str) else self.detokenize(list(prompt)).decode("utf-8", "replace")


def _or_minus_one(token: int | None) -> int:
    return -1 if token is None else token
