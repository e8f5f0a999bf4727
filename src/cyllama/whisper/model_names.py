"""Names of models: those of `cyllama.models`, and those of openai-whisper and faster-whisper."""

from __future__ import annotations

import os
from pathlib import Path

from cyllama import models
from cyllama.models.known_names import WHISPER_MODELS

__all__ = ["HUB_MODELS", "resolve_model"]

HUB_MODELS = WHISPER_MODELS
"""Names of openai-whisper and faster-whisper, and the files on the Hugging Face hub."""


def resolve_model(name_or_path: str | os.PathLike[str]) -> Path:
    """Return the path of a model of Whisper; names and files as of `cyllama.models.resolve`.

    Raises
    ------
    FileNotFoundError
        There is neither such a file nor such a name.
    IsADirectoryError
        It is a folder, such as a model of CTranslate2.
    DownloadError
        The model is on the Hugging Face hub, which cannot be reached.
    UnsupportedError
        The model is there, and huggingface_hub is not installed.
    """
    found = models.resolve(name_or_path)
    if found.is_dir():
        raise IsADirectoryError(f"the model is {str(found)!r}, a directory, expected a file in whisper.cpp's format")
    return found
