"""Say what a file is that an engine cannot load, and what to do."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from cyllama.errors import ModelLoadError

__all__ = ["file_advice", "load_errors"]

HEAD = 1 << 16  # bytes that are read
KEY = b"general.architecture"
TEXT = 8  # the type of a string in GGUF
IMAGES = {b"\x89PNG": "a PNG image", b"\xff\xd8\xff": "a JPEG image", b"GIF8": "a GIF image", b"RIFF": "a media file"}
DIFFUSION = ("flux", "sd1", "sd2", "sdxl", "sd3", "wan", "chroma", "qwen_image", "lumina2", "hidream", "ltxv", "aura")
USE = {
    "llama": "for text: `cyllama chat -m`",
    "whisper": "for speech: `cyllama transcribe -m`",
    "sd": "for images: `cyllama txt2img -m`",
    "projector": "with its language model: -m MODEL -mm THIS",
}


def file_advice(path: str | os.PathLike[str], engine: str) -> str | None:
    """Return what a file is, and a next step; None if that is not known, or if the file suits the engine.

    Parameters
    ----------
    path : str or path
    engine : str
        ``"llama"``, ``"whisper"`` or ``"sd"``.
    """
    if os.path.isdir(path):
        if (Path(path) / "config.json").exists() and engine == "llama":
            return (
                "is a folder of transformers, expected a GGUF file; convert it with llama.cpp's convert_hf_to_gguf.py"
            )
        return None if engine == "sd" else "is a folder, expected a file"
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD)
    except OSError:
        return None
    return _damage(head) or _other_kind(head, engine)


def _damage(head: bytes) -> str | None:
    if not head:
        return "is empty; download it again"
    if head.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the file; run `git lfs pull`, or download the file"
    if head.lstrip()[:9].lower() in (b"<!doctype", b"<html><he") or head.lstrip()[:5].lower() == b"<html":
        return "is an HTML page, not a model; download the file itself"
    kind = next((kind for magic, kind in IMAGES.items() if head.startswith(magic)), None)
    return None if kind is None else f"is {kind}, expected a model"


def _other_kind(head: bytes, engine: str) -> str | None:
    if head.startswith(b"GGUF"):
        name = _architecture(head)
        found = "projector" if name == "clip" else "sd" if name in DIFFUSION else "llama" if name else engine
        what = "a projector" if found == "projector" else f"a GGUF file of the architecture {name}"
    elif head.startswith(b"lmgg"):
        found, what = "whisper", "a model of whisper.cpp"
    elif head[8:10] == b'{"':
        found, what = "sd", "a file of safetensors"
        if engine == "llama":
            return f"is {what}, expected a GGUF file; convert it with llama.cpp's convert_hf_to_gguf.py"
    else:
        return None
    return None if found == engine else f"is {what}; use it {USE[found]}"


def _architecture(head: bytes) -> str:
    """Return the architecture in the header of a GGUF file; empty if it is not near the start."""
    at = head.find(KEY)
    if at < 0:
        return ""
    start = at + len(KEY)
    kind, size = (
        int.from_bytes(head[start : start + 4], "little"),
        int.from_bytes(head[start + 4 : start + 12], "little"),
    )
    text = head[start + 12 : start + 12 + size]
    return text.decode("ascii", "replace") if kind == TEXT and 0 < size <= 64 else ""


@contextlib.contextmanager
def load_errors(path: str | os.PathLike[str] | None, engine: str) -> Iterator[None]:
    """Add what the file is to the error of loading it.

    Raises
    ------
    ModelLoadError
    """
    try:
        yield
    except ModelLoadError as error:
        advice = None if path is None else file_advice(path, engine)
        if advice is None and any("corrupted or incomplete" in line for line in error.log):
            advice = "is incomplete; download it again"
        if advice is None:
            raise
        raise ModelLoadError(f"{os.fspath(path or '')} {advice}", engine=error.engine) from error
