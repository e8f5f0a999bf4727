from typing import Final

import numpy as np

from cyllama._native._handle import Handle
from cyllama.llava._chunks import InputChunk
from cyllama.llava._context import MtmdContext


class MtmdBatch(Handle):
    context: Final[MtmdContext]

    def __init__(self, ctx: MtmdContext) -> None: ...
    def __len__(self) -> int: ...
    def add_chunk(self, chunk: InputChunk) -> bool: ...
    def encode(self, *, cancel: object | None=None) -> None: ...
    def get_output_embd(self, chunk: InputChunk) -> np.ndarray: ...
