"""Projector files (mmproj), looked at before the engine reads them."""

from __future__ import annotations

import os

from cyllama.errors import ModelLoadError
from cyllama.llama._gguf import GGUFContext

__all__ = ["check_projector"]

# Metadata of a projector by which the engine divides or sizes its memory, and the most that it can be.
SIZES = {
    "image_size": 1 << 14,
    "patch_size": 1 << 12,
    "embedding_length": 1 << 16,
    "feed_forward_length": 1 << 18,
    "block_count": 1 << 10,
    "projection_dim": 1 << 16,
    "attention.head_count": 1 << 10,
    "num_mel_bins": 1 << 12,
    "projector.scale_factor": 1 << 8,
    "spatial_merge_size": 1 << 8,
}
MAY_BE_NONE = ("block_count",)  # some projectors have no transformer


def check_projector(path: str) -> None:
    """It is a projector file with all its tensors and with sizes that can be.

    Raises
    ------
    ModelLoadError
    """
    with GGUFContext.from_file(path) as file:
        kind = file.get("general.architecture")
        if kind != "clip":
            raise ModelLoadError(
                f"{path} is a model of the kind {kind!r}, expected a projector (mmproj, kind 'clip')", engine="llava"
            )
        end = max((file.data_offset + tensor.offset + tensor.size for tensor in file.tensors()), default=0)
        if end > os.path.getsize(path):
            raise ModelLoadError(
                f"{path} is truncated: {os.path.getsize(path):,} bytes, but its tensors need {end:,}", engine="llava"
            )
        for part in ("vision", "audio"):
            for name, most in SIZES.items():
                value = file.get(f"clip.{part}.{name}")
                low = 0 if name in MAY_BE_NONE else 1
                if isinstance(value, int) and not low <= value <= most:
                    raise ModelLoadError(
                        f"{path}: clip.{part}.{name} is {value}, expected {low} to {most}", engine="llava"
                    )
