import os
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from cyllama._native._handle import Handle
from cyllama.llama._model import LlamaModel

MAX_LAYER = 65535
MAX_WIDTH = 1 << 20

class LlamaAdapterLora(Handle):
    model: Final[LlamaModel]

    def __init__(self, model: LlamaModel, path: str | bytes | os.PathLike | None=None) -> None: ...
    @classmethod
    def from_fileobj(cls: type, model: LlamaModel, fileobj) -> LlamaAdapterLora: ...
    def metadata(self) -> dict[Any, Any]: ...
    def meta_val_str(self, key: str) -> str | None: ...
    @property
    def alora_invocation_tokens(self) -> list[int]: ...

@dataclass(frozen=True)
class ControlVector:
    data: np.ndarray

def load_control_vector(vectors: list[Any]) -> ControlVector: ...
