"""Types of arguments."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from PIL import Image

from cyllama.media.image import ImageSource

if TYPE_CHECKING:
    from cyllama.llama.llm import LLM
    from cyllama.llava import Llava
    from cyllama.sd import StableDiffusion
    from cyllama.whisper import AudioInput, Whisper

    LLMModel: TypeAlias = str | os.PathLike[str] | LLM
    VisionModel: TypeAlias = str | os.PathLike[str] | Llava
    WhisperModel: TypeAlias = str | os.PathLike[str] | Whisper
    DiffusionModel: TypeAlias = str | os.PathLike[str] | StableDiffusion

__all__ = [
    "AudioInput",
    "DiffusionModel",
    "ImageInput",
    "LLMModel",
    "ModelName",
    "OnPreview",
    "OnStep",
    "OnText",
    "Options",
    "VisionModel",
    "WhisperModel",
]

ModelName = str | os.PathLike[str]
"""A name of `cyllama.models`, or a path."""

ImageInput = ImageSource

Options = Mapping[str, object]
"""Keyword arguments of an engine's function."""

OnText = Callable[[str], object]
OnStep = Callable[[int, int, float], object]
OnPreview = Callable[[Image.Image, int], object]
