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


def context_params(head: bytes, dtw: bool | str | None, params: Mapping[str, Any]) -> WhisperContextParams:
    """Return the parameters for loading a Whisper model.

    Parameters
    ----------
    head : bytes
        The first bytes of the file.
    dtw : bool, str or None
        Name of the alignment heads; True for those of the model; False for no alignment; None as True, unless `params`
        has alignment heads.
    params : mapping
        Other fields of `WhisperContextParams`.

    Raises
    ------
    TypeError
        A field is unknown.
    ValueError
        The name of the alignment heads is unknown.
    """
    if dtw is False or (dtw is None and any(name.startswith("dtw_") for name in params)):
        return WhisperContextParams(**params)
    heads = {"dtw_aheads_preset": dtw} if isinstance(dtw, str) else _find_heads(head)
    return WhisperContextParams(dtw_token_timestamps=True, **heads, **params)


def _find_heads(head: bytes) -> dict[str, Any]:
    """Return the alignment heads of a model by its header."""
    if len(head) < 48 or struct.unpack_from("<I", head)[0] != MAGIC:
        return {"dtw_aheads_preset": "tiny"}  # not a model: loading reports the reason
    numbers = struct.unpack_from("<11i", head, 4)
    english = ".en" if numbers[N_VOCAB] <= ENGLISH_ONLY_VOCAB else ""
    layers = numbers[N_AUDIO_LAYER]
    if layers in SIZES and numbers[N_TEXT_LAYER] == layers:
        return {"dtw_aheads_preset": SIZES[layers] + english}
    if layers == LARGE and numbers[N_TEXT_LAYER] == TURBO_TEXT_LAYERS:
        return {"dtw_aheads_preset": "large.v3.turbo"}
    if layers == LARGE and numbers[N_TEXT_LAYER] == LARGE:
        # v1 and v2 have the same header; there are few copies of v1
        return {"dtw_aheads_preset": "large.v3" if numbers[N_MELS] >= LARGE_V3_MELS else "large.v2"}
    return {"dtw_aheads_preset": "n_top_most", "dtw_n_top": 1}  # a distilled model
