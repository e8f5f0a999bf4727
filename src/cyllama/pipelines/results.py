"""What the pipelines return: the final result, every intermediate one, and how long each step took."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from cyllama.sd import ImageResult
from cyllama.whisper import StreamedSegment, Transcription

__all__ = ["Caption", "Illustration", "Redrawing", "SpokenPicture", "Summary", "VoiceAnswer"]


@dataclass(frozen=True, kw_only=True)
class _Result:
    """What all have.

    Attributes
    ----------
    seconds : mapping
        Of each step by its name, in their order, and ``total``.
    """

    seconds: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can carry; pictures are PNG files in base64, as OpenAI's ``b64_json``."""
        return {field.name: _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}


@dataclass(frozen=True, kw_only=True)
class SpokenPicture(_Result):
    """A picture that was asked for by voice.

    Attributes
    ----------
    image : PIL.Image.Image
        The (first) picture.
    prompt : str
        What the diffusion model was told.
    transcription : Transcription
        What was heard; its ``text`` became the prompt.
    images : ImageResult
        All pictures, with their seeds and parameters.
    """

    image: Image.Image
    prompt: str
    transcription: Transcription
    images: ImageResult


@dataclass(frozen=True, kw_only=True)
class Summary(_Result):
    """What a recording says, in short.

    Attributes
    ----------
    text : str
        The summary.
    transcription : Transcription
        What was heard.
    parts : tuple of str
        Summaries of the parts of a text that is longer than the model's context; else empty.
    finish_reason : str
        ``"stop"``, or ``"length"`` if it was cut off.
    """

    text: str
    transcription: Transcription
    parts: tuple[str, ...]
    finish_reason: str


@dataclass(frozen=True, kw_only=True)
class VoiceAnswer(_Result):
    """One turn of a talk.

    Attributes
    ----------
    text : str
        The answer.
    finish_reason : str
        ``"stop"``, or ``"length"`` if it was cut off.
    heard : str
        What was said.
    segments : tuple of StreamedSegment
        Its final segments, with their times.
    messages : tuple of dict
        The talk so far, to be given to the next turn.
    """

    text: str
    finish_reason: str
    heard: str
    segments: tuple[StreamedSegment, ...]
    messages: tuple[dict[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class Illustration(_Result):
    """A picture for a text.

    Attributes
    ----------
    image : PIL.Image.Image
        The (first) picture.
    prompt : str
        What the language model wrote for the diffusion model.
    images : ImageResult
        All pictures, with their seeds and parameters.
    """

    image: Image.Image
    prompt: str
    images: ImageResult


@dataclass(frozen=True, kw_only=True)
class Caption(_Result):
    """What is in a picture.

    Attributes
    ----------
    text : str
    """

    text: str


@dataclass(frozen=True, kw_only=True)
class Redrawing(_Result):
    """A picture that was described, and drawn from its description.

    Attributes
    ----------
    image : PIL.Image.Image
        The (first) new picture.
    caption : str
        The description.
    prompt : str
        What the diffusion model was told.
    images : ImageResult
        All new pictures, with their seeds and parameters.
    """

    image: Image.Image
    caption: str
    prompt: str
    images: ImageResult


def _plain(value: Any) -> Any:
    if isinstance(value, Image.Image):
        buffer = io.BytesIO()
        value.save(buffer, "PNG")
        return base64.b64encode(buffer.getvalue()).decode()
    if isinstance(value, ImageResult):
        return {"data": [{"b64_json": _plain(image)} for image in value], "seeds": value.seeds}
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value
