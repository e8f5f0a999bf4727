"""Which heads of a model's attention follow the sound: needed to align words with it (DTW)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from cyllama.whisper.params import WhisperContextParams

__all__ = ["context_params"]

MAGIC = 0x67676D6C
N_VOCAB, N_TEXT_LAYER, N_AUDIO_LAYER, N_MELS = 0, 7, 4, 8  # places among the hyperparameters of a model file
ENGLISH_ONLY_VOCAB = 51864
SIZES = {4: "tiny", 6: "base", 12: "small", 24: "medium"}  # by the layers of the encoder
LARGE, TURBO_TEXT_LAYERS, LARGE_V3_MELS = 32, 4, 128


def context_params(head: bytes, dtw: bool | str, params: Mapping[str, Any]) -> WhisperContextParams:
    """Return how a model is to be loaded.

    Parameters
    ----------
    head : bytes
        The first bytes of its file.
    dtw : bool or str
        Whether words are aligned; the name of the heads, or True for those of the model.
    params : mapping
        Further fields.

    Raises
    ------
    TypeError
        There is no such field.
    ValueError
        The heads of the model are not known.
    """
    if not dtw:
        return WhisperContextParams(**params)
    preset = _preset(head) if dtw is True else dtw
    return WhisperContextParams(dtw_token_timestamps=True, dtw_aheads_preset=preset, **params)


def _preset(head: bytes) -> str:
    if len(head) < 48 or struct.unpack_from("<I", head)[0] != MAGIC:
        return "tiny"  # no model: loading it says what is wrong
    numbers = struct.unpack_from("<11i", head, 4)
    english = ".en" if numbers[N_VOCAB] <= ENGLISH_ONLY_VOCAB else ""
    layers = numbers[N_AUDIO_LAYER]
    if layers in SIZES:
        return SIZES[layers] + english
    if layers == LARGE and numbers[N_TEXT_LAYER] == TURBO_TEXT_LAYERS:
        return "large.v3.turbo"
    if layers == LARGE and numbers[N_MELS] >= LARGE_V3_MELS:
        return "large.v3"
    raise ValueError("the alignment heads of this model are not known; name them, such as dtw='large.v2'")
