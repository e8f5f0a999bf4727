"""Names of models: those of `cyllama.models`, and those of openai-whisper and faster-whisper."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator
from pathlib import Path

from cyllama import models
from cyllama.models.known_names import WHISPER_MODELS

__all__ = ["HUB_MODELS", "model_file", "resolve_model"]

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


@contextlib.contextmanager
def model_file(name_or_path: str | os.PathLike[str], size: int) -> Generator[tuple[str, bytes], None, None]:
    """Yield the path of a model and the first bytes of its file; an error of loading it says what the file is.

    Errors as of `resolve_model`.
    """
    path = resolve_model(name_or_path)
    with open(path, "rb") as file:
        head = file.read(size)
    with models.load_errors(path, "whisper"):
        yield os.fspath(path), head
