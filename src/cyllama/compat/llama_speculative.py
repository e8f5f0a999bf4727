"""Draft models, under the names of llama-cpp-python."""

from __future__ import annotations

__all__ = ["LlamaPromptLookupDecoding"]


class LlamaPromptLookupDecoding:
    """Draft tokens from the previous text: ``Llama(path, draft_model=LlamaPromptLookupDecoding())``.

    Parameters
    ----------
    max_ngram_size : int
        The number of tokens that are searched in the previous text.
    num_pred_tokens : int
        The most drafted tokens.
    """

    def __init__(self, max_ngram_size: int = 2, num_pred_tokens: int = 10) -> None:
        self.max_ngram_size, self.num_pred_tokens = max_ngram_size, num_pred_tokens
