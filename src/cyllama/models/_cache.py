"""The folder of downloaded and generated files: ``CYLLAMA_CACHE``, or the user's cache folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

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
        return Path(chosen).expanduser().absolute() / part
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        given = os.environ.get("XDG_CACHE_HOME", "")
        base = Path(given) if os.path.isabs(given) else Path.home() / ".cache"
    return base / "cyllama" / part
