import os
from typing import BinaryIO, Final

import numpy as np
import numpy.typing as npt

from cyllama._cancel import Cancel
from cyllama._native._handle import Handle
from cyllama.whisper.params import WhisperVadContextParams, WhisperVadParams

CENTISECONDS = 100.0
MAX_SAMPLES = 2 ** 31 - 1 - 16000

class WhisperVad(Handle):
    params: Final[object]

    def __init__(self, path_model: str | bytes | os.PathLike[str] | None=None, params: WhisperVadContextParams | None=None, *, cancel: Cancel | None=None) -> None: ...
    @classmethod
    def from_bytes(cls: type, data: bytes | bytearray | memoryview, params: WhisperVadContextParams | None=None) -> WhisperVad: ...
    @classmethod
    def from_fileobj(cls: type, fileobj: BinaryIO, params: WhisperVadContextParams | None=None) -> WhisperVad: ...
    def detect_speech(self, samples: npt.ArrayLike, *, reset: bool=True, cancel: Cancel | None=None) -> npt.NDArray[np.float32]: ...
    @property
    def probs(self) -> npt.NDArray[np.float32]: ...
    def reset_state(self) -> None: ...
    def segments_from_probs(self, params: WhisperVadParams | None=None) -> list[tuple[float, float]]: ...
    def segments(self, samples: npt.ArrayLike, params: WhisperVadParams | None=None, *, cancel: Cancel | None=None) -> list[tuple[float, float]]: ...
