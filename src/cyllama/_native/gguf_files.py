"""Checks of GGUF files as a whole."""

from __future__ import annotations

import os

from cyllama._native._gguf import GGUFContext

__all__ = ["missing_bytes"]


def missing_bytes(file: GGUFContext, path: str | os.PathLike[str]) -> int:
    """Return how many bytes a file lacks for the tensors of its header; 0 for a complete file."""
    end = max((file.data_offset + tensor.offset + tensor.size for tensor in file.tensors()), default=0)
    return max(0, int(end) - os.path.getsize(path))
