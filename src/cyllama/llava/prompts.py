"""A conversation as the engine takes it: its template, its pictures and sounds within their limits, its chunks."""

from __future__ import annotations

import secrets
from typing import Any

from cyllama.errors import UnsupportedError
from cyllama.llama._model import LlamaModel
from cyllama.llama._templates import ChatTemplate
from cyllama.llama.plain_text import ControlTexts
from cyllama.llava._bitmap import Bitmap
from cyllama.llava._chunks import InputChunks
from cyllama.llava._context import MtmdContext
from cyllama.llava.embeddings import content_id
from cyllama.llava.messages import Message
from cyllama.media.audio import load_audio
from cyllama.media.image import to_pixels
from cyllama.media.parts import Media, MediaRules

__all__ = ["Prompts", "model_template"]


def model_template(model: LlamaModel, given: str | None) -> ChatTemplate:
    """The template as upstream's multimodal program takes it: without Jinja where the engine knows it by heart."""
    if given is None:
        template = ChatTemplate(model, jinja=False)
        try:
            template.apply([("user", "x")])
        except ValueError:
            template.close()
        else:
            return template
    return ChatTemplate(model, given)


class Prompts:
    """Makes chunks of conversations.

    Parameters
    ----------
    mtmd : MtmdContext
    template : ChatTemplate
    rules : MediaRules
    """

    def __init__(self, mtmd: MtmdContext, template: ChatTemplate, rules: MediaRules) -> None:
        self._mtmd, self._template, self._rules = mtmd, template, rules
        vocab = mtmd.model.vocab
        self._control = ControlTexts(vocab.get_text(i) for i in range(len(vocab)) if vocab.is_control(i))

    def chunks(self, messages: list[Message]) -> tuple[InputChunks, list[str]]:
        """A conversation as chunks, up to where the answer begins; and the content of each picture and sound.

        Raises
        ------
        TypeError, ValueError, MediaError, UnsupportedError
        """
        marker = f"<media-{secrets.token_hex(16)}>"  # no text of the caller's has it
        media = [part for message in messages for part in message.parts if isinstance(part, Media)]
        turns = [
            (message.role, "".join(marker if isinstance(p, Media) else self._plain(message, p) for p in message.parts))
            for message in messages
        ]
        text = self._template.apply(turns)
        texts = text.split(marker)
        if len(texts) != len(media) + 1:
            raise UnsupportedError(
                f"the chat template wrote {len(texts) - 1} of {len(media)} pictures and sounds; give another one "
                "(chat_template)"
            )
        bitmaps = self._bitmaps(media)
        try:
            parts: list[Any] = [texts[0]]
            for bitmap, after in zip(bitmaps, texts[1:], strict=True):
                parts += [bitmap, after]
            return self._mtmd.tokenize_from_parts(parts), [bitmap.id or "" for bitmap in bitmaps]
        finally:
            for bitmap in bitmaps:
                bitmap.close()

    def _plain(self, message: Message, text: str) -> str:
        """What people write is text: no control token."""
        return text if message.role == "system" else self._control.plain(text)

    def _bitmaps(self, media: list[Media]) -> list[Bitmap]:
        """Pictures and sounds as the engine takes them, within the limits of a question."""
        found: list[Bitmap] = []
        pixels, seconds = 0, 0.0
        for item in media:
            bitmap = (
                self._sound(item, self._rules.max_seconds - seconds) if item.kind == "audio" else self._picture(item)
            )
            found.append(bitmap)
            if item.kind == "audio":
                seconds += bitmap.nx / (self._mtmd.audio_sample_rate or 1)
            else:
                pixels += bitmap.nx * bitmap.ny
            if pixels > self._rules.max_total_pixels:
                raise ValueError(
                    f"the pictures up to {item.name} have {pixels:,} pixels, more than "
                    f"{self._rules.max_total_pixels:,}, the most of a question (max_total_pixels)"
                )
        return found

    def _sound(self, media: Media, max_seconds: float) -> Bitmap:
        rate = self._mtmd.audio_sample_rate
        if rate is None:
            raise UnsupportedError(f"{media.name} is a sound, but the projector takes pictures only")
        samples = load_audio(media.value, target_rate=rate, max_seconds=max_seconds)
        return Bitmap.from_audio(samples, content_id(samples))

    def _picture(self, media: Media) -> Bitmap:
        if not self._mtmd.support_vision:
            raise UnsupportedError(f"{media.name} is a picture, but the projector takes sound only")
        rules = self._rules
        pixels = to_pixels(media.value, media.name, max_pixels=rules.max_pixels, max_bytes=rules.max_bytes)
        return Bitmap.from_pixels(pixels, content_id(pixels))
