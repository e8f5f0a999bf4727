"""The folder of downloaded and generated files: ``CYLLAMA_CACHE``, or the user's cache folder."""

from __future__ import annotations

import os
from pathlib import Path

from cyllama._paths import expanded, user_folder

__all__ = ["cache_folder"]


def cache_folder(part: str = "") -> Path:
    """Return the cache folder or a subfolder, which may not exist yet.

    Parameters
    ----------
    part : str
        ``"archives"`` (downloaded packages), ``"models"`` (model files), or empty for the cache folder.

    Returns
    -------
    pathlib.Path
        ``$CYLLAMA_CACHE`` if that is set, else the platform's cache folder and ``cyllama``.
    """
    chosen = os.environ.get("CYLLAMA_CACHE")
    if chosen:
        return expanded(chosen).absolute() / part
    return user_folder("cache") / part
