"""Names of models: those of `cyllama.models`, and those of openai-whisper and faster-whisper."""

from __future__ import annotations

import os
from pathlib import Path

from cyllama import models
from cyllama.errors import DownloadError

__all__ = ["HUB_MODELS", "resolve_model"]

_NAMES = (
    "tiny", "tiny.en", "base", "base.en", "small", "small.en", "medium", "medium.en", "large-v1", "large-v2",
    "large-v3", "large-v3-turbo",
)  # fmt: skip
HUB_MODELS = {
    **{name: f"hf:ggerganov/whisper.cpp/ggml-{name}.bin" for name in _NAMES},
    "large": "hf:ggerganov/whisper.cpp/ggml-large-v3.bin",
    "turbo": "hf:ggerganov/whisper.cpp/ggml-large-v3-turbo.bin",
    "distil-small.en": "hf:distil-whisper/distil-small.en/ggml-distil-small.en.bin",
    "distil-medium.en": "hf:distil-whisper/distil-medium.en/ggml-medium-32-2.en.bin",
    "distil-large-v2": "hf:distil-whisper/distil-large-v2/ggml-large-32-2.en.bin",
    "distil-large-v3": "hf:distil-whisper/distil-large-v3-ggml/ggml-distil-large-v3.bin",
    "distil-large-v3.5": "hf:distil-whisper/distil-large-v3.5-ggml/ggml-model.bin",
}
"""Names of openai-whisper and faster-whisper, and the files in whisper.cpp's format on the Hugging Face hub."""


def resolve_model(name_or_path: str | os.PathLike[str]) -> Path:
    """Return the path of a model: a file, a name of `cyllama.models`, or one of `HUB_MODELS`.

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
    try:
        found = models.resolve(name_or_path)
    except FileNotFoundError:
        hub = HUB_MODELS.get(name_or_path.casefold()) if isinstance(name_or_path, str) else None
        if hub is None:
            raise
        try:
            return models.resolve(hub)
        except DownloadError as error:
            message = f"the model {name_or_path!r} is {hub}, and the Hugging Face hub cannot be reached; give a file"
            raise DownloadError(f"{message} in whisper.cpp's format, or a name of `cyllama models list`") from error
    if found.is_dir():
        raise IsADirectoryError(f"the model is {str(found)!r}, a directory, expected a file in whisper.cpp's format")
    return found
