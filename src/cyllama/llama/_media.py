"""Images and audio in requests to `LLM`, and the projector (mmproj) that encodes them.

Upstream would fetch URLs, open files and start programs for formats that it cannot read. So `cyllama.media` opens and
decodes all media here, and the engine gets pixels and samples beside the JSON of a request. An image gives the same
response in every form, and limits bound the cost of a request.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cyllama._cancel import Cancel
from cyllama._native._gguf import GGUFContext
from cyllama._native.gguf_files import missing_bytes
from cyllama.errors import ModelLoadError, UnsupportedError
from cyllama.llama._projector_tensors import missing_tensors
from cyllama.media.audio import SAMPLE_RATE, load_audio
from cyllama.media.encoded import decode_base64, is_audio_file
from cyllama.media.image import to_pixels
from cyllama.media.image_file import check_image_file
from cyllama.media.message_parts import Media, MediaRules, list_media, part_media

__all__ = ["AttachedFile", "Attachments", "MediaInput", "check_projector"]

IEEE_FLOAT = 3  # format of WAV files
LISTS = ("content", "output")  # keys of a message, or of an item of /v1/responses, with parts
PROMPTS = ("messages", "input", "prompt", "content")  # keys of a request with messages or prompts
REDUCED_PIXELS = 12_500_000  # of a larger image; the engine reduces images further, to the sizes of its model


@dataclass(frozen=True, eq=False)
class AttachedFile:
    """An image or an audio clip in the body of a request, in place of a URL or of base64.

    Attributes
    ----------
    buffers : tuple of contiguous buffers of bytes
        The parts of a file in a format that mtmd reads: PNM, WAV.
    """

    buffers: tuple[bytes | memoryview, ...]


class Attachments:
    """The files of a request while its body is written as JSON.

    Attributes
    ----------
    files : list of tuple of buffers
        As of ``Engine.request``.
    """

    def __init__(self) -> None:
        self.files: list[tuple[bytes | memoryview, ...]] = []

    def refer(self, value: object) -> str:
        """Return the JSON of a value that JSON cannot express: the reference to an `AttachedFile`.

        Raises
        ------
        TypeError
        """
        if not isinstance(value, AttachedFile):
            raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")
        self.files.append(value.buffers)
        return f"attachment:{len(self.files) - 1}"


@dataclass(frozen=True)
class MediaInput:
    """The media that a loaded model accepts, and their rules.

    Attributes
    ----------
    rules : MediaRules
    vision, audio : bool
        Whether the projector encodes images, audio.
    """

    rules: MediaRules
    vision: bool
    audio: bool

    def attached(self, messages: list[dict[str, Any]], images: Any, audio: Any) -> list[dict[str, Any]]:
        """Return messages with images and audio before the text of the last one.

        Raises
        ------
        ValueError
            The last message is not the user's.
        """
        media = [*list_media(images, "image", "images"), *list_media(audio, "audio", "audio")]
        if not media:
            return messages
        last = messages[-1]
        if last["role"] != "user":
            raise ValueError(f"images and audio belong to a message of the user, but the last is of {last['role']!r}")
        content = last.get("content") or []
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
        return [*messages[:-1], {**last, "content": [*media, *parts]}]

    def for_upstream(
        self, messages: Sequence[Any], *, name: str = "messages", cancel: Cancel | None = None, own_form: bool = False
    ) -> list[Any]:
        """Return messages in which images and audio are decoded, each an `AttachedFile`.

        Parameters
        ----------
        messages : sequence of mapping
            Not changed.
        name : str
        cancel : Cancel, optional
            Stops a download.
        own_form : bool
            The messages are of another client: parts keep the form of their interface, and must be JSON objects.
            Without, a part may also be a string, or an image as of `cyllama.media.image.to_pixels`.

        Raises
        ------
        UnsupportedError
            The model does not accept the media.
        ValueError, MediaError
            The media are above a limit, forbidden, or damaged.
        """
        found: list[Any] = _Request(self, cancel, own_form).decode(list(messages), name)
        return found

    def decode_body(self, body: Mapping[str, Any], cancel: Cancel | None = None) -> dict[str, Any]:
        """Return the body of another client's request in which all media are decoded.

        Images and audio are in the parts of ``messages`` and ``input``, and in ``multimodal_data`` of prompts.

        Raises
        ------
        As of `for_upstream`.
        """
        request = _Request(self, cancel, own_form=True)
        return {key: request.decode(value, key) if key in PROMPTS else value for key, value in body.items()}

    def check(self, kind: str, name: str) -> None:
        """Check that the model accepts images, or audio.

        Raises
        ------
        UnsupportedError
        """
        if not (self.vision or self.audio):
            raise UnsupportedError(
                f"{name} is {_noun(kind)}, but the model was loaded without a projector: pass mmproj= to LLM"
            )
        if not (self.vision if kind == "image" else self.audio):
            accepted = "images" if self.vision else "audio"
            raise UnsupportedError(f"{name} is {_noun(kind)}, but the projector (mmproj) accepts only {accepted}")


class _Request:
    """A request, whose limits hold for all its media together."""

    def __init__(self, media: MediaInput, cancel: Cancel | None, own_form: bool) -> None:
        self._media, self._cancel, self._own_form = media, cancel, own_form
        self._pixels, self._seconds = 0, 0.0

    def decode(self, value: Any, name: str) -> Any:
        """Return messages, prompts or lists of them with decoded media."""
        if isinstance(value, list):
            return [self.decode(item, f"{name}[{i}]") for i, item in enumerate(value)]
        if not isinstance(value, Mapping):
            return value
        found = {}
        for key in LISTS:
            if isinstance(value.get(key), list | tuple):
                found[key] = [self._part(part, f"{name}.{key}[{i}]") for i, part in enumerate(value[key])]
        if "multimodal_data" in value:
            found["multimodal_data"] = self._files(value["multimodal_data"], f"{name}.multimodal_data")
        return {**value, **found} if found else value

    def _files(self, values: Any, name: str) -> list[AttachedFile]:
        """Return the files of a prompt, which are base64 or bytes."""
        if not isinstance(values, list):
            raise ValueError(f"{name} is {values!r:.100}, expected a list of base64")
        files = []
        for i, value in enumerate(values):
            where = f"{name}[{i}]"
            if isinstance(value, str):
                value = decode_base64(value, where, max_bytes=self._media.rules.max_bytes)
            if not isinstance(value, bytes):
                raise ValueError(f"{where} is {value!r:.100}, expected base64")
            files.append(self._file(Media("audio" if is_audio_file(value[:12]) else "image", value, where)))
        return files

    def _part(self, part: Any, name: str) -> Any:
        if isinstance(part, Media):
            return self._written(part, part.kind)
        if not isinstance(part, Mapping):
            if self._own_form:
                return part
            if isinstance(part, str):
                return {"type": "text", "text": part}
            return self._written(Media("image", part, name))
        if part.get("type") == "tool_result":
            return self.decode(part, name)
        found = part_media(part, name, self._media.rules, self._cancel)
        return part if found is None else self._written(found, str(part["type"]), part)

    def _written(self, media: Media, type_: str = "", part: Mapping[str, Any] | None = None) -> dict[str, Any]:
        file = self._file(media)
        if self._own_form and part is not None and isinstance(part.get("source"), Mapping):
            return {"type": "image", "source": {"type": "url", "url": file}}
        if self._own_form and type_ == "input_image":
            return {"type": "input_image", "image_url": file}
        if media.kind == "image":
            return {"type": "image_url", "image_url": {"url": file}}
        return {"type": "input_audio", "input_audio": {"data": file, "format": "wav"}}

    def _file(self, media: Media) -> AttachedFile:
        self._media.check(media.kind, media.name)
        return self._image(media) if media.kind == "image" else self._audio(media)

    def _image(self, media: Media) -> AttachedFile:
        rules = self._media.rules
        if is_encoded := isinstance(media.value, bytes):  # counted before it is decoded
            self._count(check_image_file(media.value, media.name, rules.max_pixels), media.name)
        limits = {"max_pixels": rules.max_pixels, "max_bytes": rules.max_bytes, "reduce_to": REDUCED_PIXELS}
        pixels = to_pixels(media.value, media.name, **limits)
        height, width = pixels.shape[:2]
        if not is_encoded:
            self._count(height * width, media.name)
        return AttachedFile((b"P6\n%d %d\n255\n" % (width, height), pixels.reshape(-1).data))

    def _count(self, pixels: int, name: str) -> None:
        self._pixels += pixels
        most = self._media.rules.max_total_pixels
        if self._pixels > most:
            raise ValueError(
                f"the images up to {name} have {self._pixels:,} pixels, expected at most {most:,} in a request "
                "(max_total_pixels)"
            )

    def _audio(self, media: Media) -> AttachedFile:
        left = max(0.0, self._media.rules.max_seconds - self._seconds)
        samples = load_audio(media.value, max_seconds=left, cancel=self._cancel)
        self._seconds += len(samples) / SAMPLE_RATE
        data = np.ascontiguousarray(samples, "<f4").view(np.uint8).data
        form = struct.pack("<HHIIHH", IEEE_FLOAT, 1, SAMPLE_RATE, 4 * SAMPLE_RATE, 4, 32)
        chunks = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(data))
        # without a time, which libsndfile writes: the engine recognizes known audio by its bytes
        return AttachedFile((b"RIFF" + struct.pack("<I", len(chunks) + len(data)) + chunks, data))


def _noun(kind: str) -> str:
    return "an image" if kind == "image" else "audio"


# Metadata of a projector by which the engine divides, or which size its memory, and their largest values.
SIZES = {
    "image_size": 1 << 14,
    "patch_size": 1 << 12,
    "embedding_length": 1 << 16,
    "feed_forward_length": 1 << 18,
    "block_count": 1 << 10,
    "projection_dim": 1 << 16,
    "attention.head_count": 1 << 10,
    "num_mel_bins": 1 << 12,
    "projector.scale_factor": 1 << 8,
    "spatial_merge_size": 1 << 8,
}
MAY_BE_ZERO = ("block_count",)  # some projectors have no transformer


def check_projector(path: str) -> None:
    """Check that a file is a projector with all its tensors and with valid sizes.

    Raises
    ------
    ModelLoadError
    """
    with GGUFContext.from_file(path) as file:
        kind = file.get("general.architecture")
        if kind != "clip":
            raise ModelLoadError(
                f"{path} is a model of the architecture {kind!r}, expected a projector (mmproj, 'clip')", engine="llava"
            )
        if missing := missing_bytes(file, path):
            size = os.path.getsize(path)
            raise ModelLoadError(
                f"{path} is truncated: it has {size:,} bytes, but its tensors need {size + missing:,}", engine="llava"
            )
        names = {tensor.name for tensor in file.tensors()}
        projectors = {}
        for part in ("vision", "audio"):
            _check_sizes(file, part, path)
            if file.get(f"clip.{part}.block_count") == 0 and f"{part[0]}.blk.0.attn_out.weight" in names:
                raise ModelLoadError(f"{path}: clip.{part}.block_count is 0, but the file has blocks", engine="llava")
            if file.get(f"clip.has_{part}_encoder") is True:
                projectors[part] = str(file.get("clip.projector_type") or file.get(f"clip.{part}.projector_type"))
        lost = next(missing_tensors(names, projectors), None)
        if lost is not None:
            raise ModelLoadError(f"{path} has no tensor {lost}: it is damaged or incomplete", engine="llava")


def _check_sizes(file: GGUFContext, part: str, path: str) -> None:
    for name, most in SIZES.items():
        value = file.get(f"clip.{part}.{name}")
        low = 0 if name in MAY_BE_ZERO else 1
        if isinstance(value, int) and not low <= value <= most:
            raise ModelLoadError(f"{path}: clip.{part}.{name} is {value}, expected {low} to {most}", engine="llava")
    width, heads = (file.get(f"clip.{part}.{name}") for name in ("embedding_length", "attention.head_count"))
    divides = not isinstance(width, int) or not isinstance(heads, int) or width % heads == 0
    if not divides and f"clip.{part}.attention.head_dim" not in file:
        raise ModelLoadError(
            f"{path}: clip.{part}.attention.head_count is {heads}, expected a divisor of embedding_length, {width}",
            engine="llava",
        )
