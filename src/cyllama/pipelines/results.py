"""Results of pipelines: the final value, the intermediate values, and the seconds of each step."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from cyllama import _html
from cyllama.sd import GeneratedImage, ImageResult
from cyllama.whisper import StreamedSegment, Transcription

__all__ = ["Caption", "Illustration", "ImageVariation", "SpeechToImageResult", "Summary", "VoiceChatTurn"]

MAX_TEXT = 60  # characters of a text in a repr


@dataclass(frozen=True, kw_only=True, repr=False)
class _Result:
    """Base of all results.

    Attributes
    ----------
    seconds : mapping
        The seconds of each step by its name, in order, and ``total``.
    """

    seconds: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON values; images are PNG files in base64, as in OpenAI's ``b64_json``."""
        return {field.name: _to_json(getattr(self, field.name)) for field in dataclasses.fields(self)}

    def __repr__(self) -> str:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        texts = [f"{name}={_shorten(value)!r}" for name, value in values.items() if isinstance(value, str)]
        total = f"seconds={self.seconds['total']:.2f}"
        return f"{type(self).__name__}({', '.join([*texts, total])})"


@dataclass(frozen=True, kw_only=True, repr=False)
class _ImagePipelineResult(_Result):
    """Base of the results with images; a notebook shows the texts and the images.

    Attributes
    ----------
    image : GeneratedImage
        The first image.
    prompt : str
        The prompt of the diffusion model.
    images : ImageResult
        All images, with their seeds and parameters.
    """

    image: GeneratedImage
    prompt: str
    images: ImageResult

    def _repr_html_(self) -> str:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        rows: dict[str, object] = {k: v for k, v in values.items() if isinstance(v, str) and k != "prompt"}
        seconds = ", ".join(f"{name} {value:.2f}" for name, value in self.seconds.items())
        return _html.table(rows | {"seconds": seconds}) + self.images._repr_html_()


@dataclass(frozen=True, kw_only=True, repr=False)
class SpeechToImageResult(_ImagePipelineResult):
    """The result of `speech_to_image`.

    Attributes
    ----------
    image : GeneratedImage
        The first image.
    prompt : str
        The prompt, made of the transcription.
    transcription : Transcription
    images : ImageResult
        All images, with their seeds and parameters.
    seconds : mapping
        The seconds of each step by its name, in order, and ``total``.
    """

    transcription: Transcription


@dataclass(frozen=True, kw_only=True, repr=False)
class Illustration(_ImagePipelineResult):
    """The result of `illustrate`.

    Attributes
    ----------
    image : GeneratedImage
        The first image.
    prompt : str
        The prompt that the language model wrote.
    images : ImageResult
        All images, with their seeds and parameters.
    seconds : mapping
        The seconds of each step by its name, in order, and ``total``.
    """


@dataclass(frozen=True, kw_only=True, repr=False)
class ImageVariation(_ImagePipelineResult):
    """The result of `create_variation`.

    Attributes
    ----------
    image : GeneratedImage
        The first new image.
    caption : str
        The description of the original image.
    prompt : str
        The prompt, made of the description.
    images : ImageResult
        All new images, with their seeds and parameters.
    seconds : mapping
        The seconds of each step by its name, in order, and ``total``.
    """

    caption: str


@dataclass(frozen=True, kw_only=True, repr=False)
class Caption(_Result):
    """The result of `caption`.

    Attributes
    ----------
    text : str
        The description of the image.
    seconds : mapping
        The seconds of each step by its name, in order, and ``total``.
    """

    text: str

    def __str__(self) -> str:
        return self.text

    def _repr_markdown_(self) -> str:
        return self.text


@dataclass(frozen=True, kw_only=True, repr=False)
class Summary(_Result):
    """The result of `summarize_audio`.

    Attributes
    ----------
    text : str
        The summary.
    transcription : Transcription
    parts : tuple of str
        Summaries of the parts of a text that is longer than the model's context; else empty.
    finish_reason : str
        ``"stop"``, or ``"length"`` if `max_tokens` was reached.
    seconds : mapping
        The seconds of each step by its name, in order, and ``total``.
    """

    text: str
    transcription: Transcription
    parts: tuple[str, ...]
    finish_reason: str

    def __str__(self) -> str:
        return self.text

    def _repr_markdown_(self) -> str:
        return self.text


@dataclass(frozen=True, kw_only=True, repr=False)
class VoiceChatTurn(_Result):
    """The result of `voice_chat`: one turn of a conversation.

    Attributes
    ----------
    text : str
        The reply.
    finish_reason : str
        ``"stop"``, or ``"length"`` if `max_tokens` was reached.
    transcript : str
        The spoken message.
    segments : tuple of StreamedSegment
        The final segments of the spoken message, with their times.
    messages : tuple of dict
        The conversation, for the next turn.
    seconds : mapping
        The seconds of each step by its name, in order, and ``total``.
    """

    text: str
    finish_reason: str
    transcript: str
    segments: tuple[StreamedSegment, ...]
    messages: tuple[dict[str, Any], ...]

    def __str__(self) -> str:
        return self.text

    def _repr_markdown_(self) -> str:
        return f"**user:** {self.transcript}\n\n**assistant:** {self.text}"


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 3]}..."


def _to_json(value: Any) -> Any:
    if isinstance(value, Image.Image):
        buffer = io.BytesIO()
        value.save(buffer, "PNG")
        return base64.b64encode(buffer.getvalue()).decode()
    if isinstance(value, ImageResult):
        return {"data": [{"b64_json": _to_json(image)} for image in value], "seeds": value.seeds}
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if dataclasses.is_dataclass(value):
        return {field.name: _to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _to_json(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_to_json(item) for item in value]
    return value
