from dataclasses import dataclass
from typing import Final

import numpy as np

from cyllama._native._handle import Handle
from cyllama.llama._context import LlamaContext


@dataclass(frozen=True)
class TrainingResult:
    n_tokens: int
    loss: float
    loss_uncertainty: float
    accuracy: float

class Trainer(Handle):
    context: Final[LlamaContext]
    optimizer: Final[str]
    learning_rate: float
    beta1: float
    beta2: float
    eps: float
    weight_decay: float

    def __init__(self, context: LlamaContext, *, optimizer: str='adamw', learning_rate: float=0.0001, beta1: float=0.9, beta2: float=0.999, eps: float=1e-08, weight_decay: float=0.0, param_filter: object | None=None) -> None: ...
    def epoch(self, tokens: np.ndarray, labels: np.ndarray, n_train: int | None=None, *, callback: object | None=None, cancel: object | None=None) -> tuple[TrainingResult, TrainingResult]: ...

def training_windows(tokens: np.ndarray, n_ctx: int, stride: int | None=None) -> tuple[np.ndarray, np.ndarray]: ...
