"""Parameters of the engine: one dataclass for each parameter struct of mtmd.h and mtmd-helper.h.

Field names are those of the C struct. ``None`` is the engine's own default.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cyllama._params import Params, param
from cyllama.llama._enums import FlashAttnType

__all__ = ["MtmdContextParams", "VideoParams"]

MAX_TOKENS = 2**20


@dataclass(kw_only=True, repr=False)
class MtmdContextParams(Params, c="mtmd_context_params"):
    """Parameters for loading a projector file (``mtmd_context_params``, mtmd.h)."""

    use_gpu: bool | None = param("compute on a GPU if there is one")
    device: str | None = param("name of the device; default: the first GPU", c=None)
    print_timings: bool | None = param("log the engine's own timings")
    n_threads: int | None = param("threads of the encoder; default: the thread budget", low=1, high=512)
    media_marker: str | None = param("placeholder of an image or audio in a prompt")
    flash_attn_type: int | str | None = param("flash attention", enum=FlashAttnType)
    warmup: bool | None = param("reserve the encoder's memory while loading")
    image_min_tokens: int | None = param("minimum tokens of an image (dynamic resolution)", low=1, high=MAX_TOKENS)
    image_max_tokens: int | None = param("maximum tokens of an image (dynamic resolution)", low=1, high=MAX_TOKENS)
    cb_eval: Callable[..., Any] | None = param(
        "called for every tensor of the encoder's graph, see MtmdContext; slows the computation down", c=None
    )
    batch_max_tokens: int | None = param(
        "most tokens of a batch of images; one image may have more", low=1, high=MAX_TOKENS
    )
    progress_callback: Callable[[float], bool | None] | None = param(
        "called with 0.0 to 1.0 while loading; False cancels", c=None
    )

    def _check_together(self) -> None:
        if self.media_marker == "":
            raise ValueError("media_marker is '', expected a text")
        low, high = self.image_min_tokens, self.image_max_tokens
        if low is not None and high is not None and low > high:
            raise ValueError(f"image_min_tokens is {low}, expected at most image_max_tokens ({high})")


@dataclass(kw_only=True, repr=False)
class VideoParams(Params, c="mtmd_helper_video_init_params"):
    """Parameters for reading a video (``mtmd_helper_video_init_params``, mtmd-helper.h)."""

    fps_target: float | None = param("frames per second; 0 or less: those of the video", high=1000)
    ffmpeg_bin_dir: str | os.PathLike[str] | None = param("folder with ffmpeg and ffprobe; default: PATH", c=None)
    timestamp_interval_ms: int | None = param(
        "milliseconds between two timestamps in the prompt; 0 or less: none", low=-(2**53), high=2**53
    )
