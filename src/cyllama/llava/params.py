"""Parameters: one keyword-only dataclass for each parameter struct of mtmd.h and mtmd-helper.h.

Field names are those of the C struct. ``None`` is the engine's own default.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cyllama.llama.params import _param, _Params

__all__ = ["MtmdContextParams", "VideoParams"]


@dataclass(kw_only=True)
class MtmdContextParams(_Params):
    """How a projector file is loaded (``mtmd_context_params``, mtmd.h)."""

    use_gpu: bool | None = _param("compute on a GPU where there is one")
    device: str | None = _param("the device to compute on, by name; default: the first GPU")
    print_timings: bool | None = _param("log the engine's own timings")
    n_threads: int | None = _param("threads of the encoder; default: the thread budget")
    media_marker: str | None = _param("the text that stands for a picture or a sound in a prompt")
    flash_attn_type: int | str | None = _param("flash attention", enum="FlashAttnType")
    warmup: bool | None = _param("reserve the encoder's memory while loading")
    image_min_tokens: int | None = _param("fewest tokens of a picture, of models with dynamic resolution")
    image_max_tokens: int | None = _param("most tokens of a picture, of models with dynamic resolution")
    cb_eval: Callable[..., Any] | None = _param(
        "called for every tensor of the encoder's graph, see MtmdContext; slows the computation down"
    )
    batch_max_tokens: int | None = _param("most tokens of a batch of pictures; one picture may have more")
    progress_callback: Callable[[float], bool | None] | None = _param(
        "called with 0.0 to 1.0 while loading; False cancels"
    )


@dataclass(kw_only=True)
class VideoParams(_Params):
    """How a video is read (``mtmd_helper_video_init_params``, mtmd-helper.h)."""

    fps_target: float | None = _param("frames for each second; 0 or less: those of the video")
    ffmpeg_bin_dir: str | os.PathLike[str] | None = _param("folder with ffmpeg and ffprobe; default: PATH")
    timestamp_interval_ms: int | None = _param("milliseconds between two times that are told; 0 or less: none")
