"""Files of the Hugging Face hub."""

from __future__ import annotations

import fnmatch
import os
from pathlib import Path
from typing import Any

from cyllama.errors import DownloadError, UnsupportedError

__all__ = ["download", "matching_file"]


def matching_file(names: list[str], pattern: str, repo_id: str) -> str:
    """Return the name that matches a pattern.

    Raises
    ------
    ValueError
        None matches, or several do.
    """
    found = [name for name in names if fnmatch.fnmatch(name, pattern)]
    if len(found) != 1:
        shown = ", ".join(found or names)
        raise ValueError(f"filename is {pattern!r}, but {len(found)} files of {repo_id} match: {shown}")
    return found[0]


def download(
    repo_id: str,
    *patterns: str,
    local_dir: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Path:
    """Return the path of a file of a repository; download it, and those of the other patterns, if they are missing.

    Parameters
    ----------
    repo_id : str
        ``"organisation/repository"``
    *patterns : str
        Names of files, which may have wildcards. The path of the first one is returned.
    local_dir, cache_dir : str or path, optional
        As of ``huggingface_hub.hf_hub_download``.

    Raises
    ------
    UnsupportedError
        The package huggingface_hub is missing.
    ValueError
        No file, or more than one, matches a pattern.
    DownloadError
    """
    try:
        from huggingface_hub import hf_hub_download, list_repo_files
    except ImportError as error:
        raise UnsupportedError(f"{repo_id} needs huggingface_hub: pip install huggingface_hub") from error
    names: list[str] = []
    if any(sign in pattern for pattern in patterns for sign in "*?["):
        try:
            names = list_repo_files(repo_id)
        except (OSError, ValueError) as error:
            raise DownloadError(f"cannot list the files of {repo_id}: {error}") from error
    chosen = [matching_file(names, pattern, repo_id) if names else pattern for pattern in patterns]
    folders: Any = {"local_dir": local_dir, "cache_dir": cache_dir}
    try:
        paths = [Path(hf_hub_download(repo_id, name, **folders)) for name in chosen]
    except (OSError, ValueError) as error:  # base classes of the exceptions of huggingface_hub
        raise DownloadError(f"cannot get {' and '.join(chosen)} of {repo_id}: {error}") from error
    return paths[0]
