"""Convert Whisper models of transformers (safetensors) and CTranslate2 to the format of whisper.cpp."""

from __future__ import annotations

import os
from pathlib import Path

from cyllama._native.files import atomic_path
from cyllama.errors import DownloadError, ModelLoadError
from cyllama.media.mel import mel_filters

__all__ = ["convert"]


def convert(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> Path:
    """Convert a model; the weights are 16-bit floats. `quantize` makes the result smaller.

    Parameters
    ----------
    source : path
        A folder with ``model.bin`` of CTranslate2 or ``*.safetensors`` of transformers, and the vocabulary
        (``tokenizer.json``, ``vocab.json``, ``vocabulary.json`` or ``vocabulary.txt``).
    target : path
        The file to write.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    NotADirectoryError
        `source` is not a folder.
    ModelLoadError
        A file is missing, damaged, or of another kind of model.
    OSError
        The file cannot be written.
    """
    from cyllama.models.converters.whisper_folder import convert_folder

    folder = Path(source)
    if not folder.is_dir():
        raise NotADirectoryError(f"source is {str(folder)!r}, expected a folder with a model")
    with atomic_path(Path(target)) as temporary, open(temporary, "wb") as out:
        try:
            convert_folder(folder, mel_filters, out)
        except DownloadError as error:
            raise ModelLoadError(str(error), engine="whisper") from error
    return Path(target)
