from typing import Final

from cyllama._native._handle import Handle
from cyllama.whisper._model import WhisperContext

MAX_STATES = 256

class WhisperGroup(Handle):
    context: Final[WhisperContext]
    n_states: Final[int]

    def __init__(self, context: WhisperContext, n_states: int) -> None: ...
