from typing import Any, Final

from cyllama._native._handle import Handle
from cyllama.llama._common import CommonParams
from cyllama.llama._context import LlamaContext


class Speculative(Handle):
    target: Final[LlamaContext]
    draft_context: Final[LlamaContext]

    def __init__(self, target: LlamaContext, types: list[Any]=('ngram-simple',), params: CommonParams | None=None, draft: LlamaContext | None=None) -> None: ...
    def begin(self, prompt: list[Any], seq_id: int=0) -> None: ...
    def draft(self, tokens: list[Any], last: int, seq_id: int=0, n_max: int | None=None) -> list[int]: ...
    def accept(self, n_accepted: int, seq_id: int=0) -> None: ...

def speculative_types() -> list[str]: ...
