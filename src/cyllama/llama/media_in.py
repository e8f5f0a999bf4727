"""Pictures and sound in chats, as upstream's server code takes them: data in the request, and nothing else.

Upstream would fetch addresses, open files and start programs on what it cannot read. So every picture and every sound
is opened and decoded here, by `cyllama.media`, and goes on as plain pixels or samples. That makes a picture the same in
every form, and bounds what a request can cost.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import soundfile

from cyllama.errors import UnsupportedError
from cyllama.media.audio import SAMPLE_RATE, load_audio
from cyllama.media.image import to_pixels
from cyllama.media.parts import Media, MediaRules, given_media, part_media

__all__ = ["MediaInput"]

PICTURE, SOUND = "image/x-portable-pixmap", "audio/wav"
LISTS = ("content", "output")  # where a message, or an item of /v1/responses, has parts


@dataclass(frozen=True)
class MediaInput:
    """What a loaded model takes beside text, and by which rules.

    Attributes
    ----------
    rules : MediaRules
    vision, audio : bool
        Whether the projector knows pictures, sound.
    """

    rules: MediaRules
    vision: bool
    audio: bool

    def attached(self, messages: list[dict[str, Any]], images: Any, audio: Any) -> list[dict[str, Any]]:
        """Messages with pictures and sounds before the text of the last one.

        Raises
        ------
        ValueError
            The last message is not the user's.
        """
        media = [*given_media(images, "image", "images"), *given_media(audio, "audio", "audio")]
        if not media:
            return messages
        last = messages[-1]
        if last["role"] != "user":
            raise ValueError(f"images and audio belong to a message of the user, but the last is of {last['role']!r}")
        content = last.get("content") or []
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
        return [*messages[:-1], {**last, "content": [*media, *parts]}]

    def for_upstream(
        self, messages: Sequence[Any], *, name: str = "messages", cancel: Any = None, own_form: bool = False
    ) -> list[Any]:
        """Messages, or the input of ``/v1/responses``, in which pictures and sounds are data that upstream reads.

        Parameters
        ----------
        messages : sequence of mapping
            What is given stays as it is.
        name : str
        cancel : object with ``is_set()``, optional
            Stops a download.
        own_form : bool
            Leave the parts of other interfaces than OpenAI's chat in their form.

        Raises
        ------
        UnsupportedError
            The model does not take it.
        ValueError, MediaError
            It is above a limit, not allowed, or damaged.
        """
        request = _Request(self, cancel, own_form)
        return [request.message(message, f"{name}[{i}]") for i, message in enumerate(messages)]

    def check(self, kind: str, name: str) -> None:
        """See that the model takes pictures, or sound.

        Raises
        ------
        UnsupportedError
        """
        if not (self.vision or self.audio):
            raise UnsupportedError(
                f"{name} is {_called(kind)}, but the model was loaded without a projector: give LLM its mmproj file"
            )
        if not (self.vision if kind == "image" else self.audio):
            raise UnsupportedError(
                f"{name} is {_called(kind)}, but the projector (mmproj) takes {'pictures' if self.vision else 'sound'} "
                "alone"
            )


class _Request:
    """One request, whose limits hold for all that it has."""

    def __init__(self, media: MediaInput, cancel: Any, own_form: bool) -> None:
        self._media, self._cancel, self._own_form = media, cancel, own_form
        self._pixels, self._seconds = 0, 0.0

    def message(self, message: Any, name: str) -> Any:
        if not isinstance(message, Mapping):
            return message
        lists = {key: message[key] for key in LISTS if isinstance(message.get(key), list | tuple)}
        found = {
            key: [self._part(part, f"{name}.{key}[{i}]") for i, part in enumerate(parts)]
            for key, parts in lists.items()
        }
        return {**message, **found} if found else message

    def _part(self, part: Any, name: str) -> Any:
        if isinstance(part, Media):
            return self._written(part, part.kind)
        if not isinstance(part, Mapping):
            return part
        if part.get("type") == "tool_result":
            return self.message(part, name)
        found = part_media(part, name, self._media.rules, self._cancel)
        return part if found is None else self._written(found, str(part["type"]), part)

    def _written(self, media: Media, type_: str, part: Mapping[str, Any] | None = None) -> dict[str, Any]:
        mime, data = self.data(media)
        if self._own_form and part is not None and isinstance(part.get("source"), Mapping):
            return {"type": "image", "source": {"type": "base64", "media_type": mime, "data": data}}
        url = f"data:{mime};base64,{data}"
        if self._own_form and type_ == "input_image":
            return {"type": "input_image", "image_url": url}
        if media.kind == "image":
            return {"type": "image_url", "image_url": {"url": url}}
        return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}

    def data(self, media: Media) -> tuple[str, str]:
        """The kind of a file and its base64: plain pixels, or samples."""
        self._media.check(media.kind, media.name)
        raw = self._picture(media) if media.kind == "image" else self._sound(media)
        return PICTURE if media.kind == "image" else SOUND, base64.b64encode(raw).decode()

    def _picture(self, media: Media) -> bytes:
        rules = self._media.rules
        pixels = to_pixels(media.value, media.name, max_pixels=rules.max_pixels, max_bytes=rules.max_bytes)
        height, width = pixels.shape[:2]
        self._pixels += height * width
        if self._pixels > rules.max_total_pixels:
            raise ValueError(
                f"the pictures up to {media.name} have {self._pixels:,} pixels, more than {rules.max_total_pixels:,}, "
                "the most that one request may have (max_total_pixels)"
            )
        return b"P6\n%d %d\n255\n" % (width, height) + pixels.tobytes()

    def _sound(self, media: Media) -> bytes:
        left = self._media.rules.max_seconds - self._seconds
        samples = load_audio(media.value, max_seconds=left)
        self._seconds += len(samples) / SAMPLE_RATE
        out = io.BytesIO()
        soundfile.write(out, samples, SAMPLE_RATE, format="WAV", subtype="FLOAT")
        return out.getvalue()


def _called(kind: str) -> str:
    return "a picture" if kind == "image" else "a sound"
