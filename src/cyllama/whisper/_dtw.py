"""Alignment heads of a model, for times by dynamic time warping (DTW)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from cyllama.whisper._model_source import MAGIC
from cyllama.whisper.params import WhisperContextParams

__all__ = ["context_params"]

N_VOCAB, N_TEXT_LAYER, N_AUDIO_LAYER, N_MELS = 0, 7, 4, 8  # indices in the header of a model file
ENGLISH_ONLY_VOCAB = 51864
SIZES = {4: "tiny", 6: "base", 12: "small", 24: "medium"}  # by the layers of the encoder
LARGE, TURBO_TEXT_LAYERS, LARGE_V3_MELS = 32, 4, 128


def context_params(head: bytes, dtw: bool | str, params: Mapping[str, Any]) -> WhisperContextParams:
    """Return the parameters for loading a Whisper model.

    Parameters
    ----------
    head : bytes
        The first bytes of the file.
    dtw : bool or str
        Name of the alignment heads, or True for those of the model, or False for no alignment.
    params : mapping
        Other fields of `WhisperContextParams`.

    Raises
    ------
    TypeError
        A field is unknown.
    ValueError
        The alignment heads of the model are unknown.
    """
    if not dtw:
        return WhisperContextParams(**params)
    preset = _find_preset(head) if dtw is True else dtw
    return WhisperContextParams(dtw_token_timestamps=True, dtw_aheads_preset=preset, **params)


def _find_preset(head: bytes) -> str:
    if len(head) < 48 or struct.unpack_from("<I", head)[0] != MAGIC:
        return "tiny"  # not a model: loading reports the reason
    numbers = struct.unpack_from("<11i", head, 4)
    english = ".en" if numbers[N_VOCAB] <= ENGLISH_ONLY_VOCAB else ""
    layers = numbers[N_AUDIO_LAYER]
    if layers in SIZES:
        return SIZES[layers] + english
    if layers == LARGE and numbers[N_TEXT_LAYER] == TURBO_TEXT_LAYERS:
        return "large.v3.turbo"
    if layers == LARGE and numbers[N_MELS] >= LARGE_V3_MELS:
        return "large.v3"
    raise ValueError(
        "dtw is True, but the alignment heads of this model are unknown, expected a name such as 'large.v2'"
    )
