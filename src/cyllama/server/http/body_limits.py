"""Limits on the contents of JSON bodies: values, levels, text, and the number of prompts, messages, tools and media."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from starlette.exceptions import HTTPException

from cyllama.server.http.errors import http_error
from cyllama.server.limits import Limits

__all__ = ["MEDIA", "ValueCounter", "check_body", "check_values", "containers", "depth_error"]

STRUCTURE, QUOTE = b'"[{,', b'"'
OTHER_BYTES = bytes(set(range(256)) - set(STRUCTURE))

# Keys of media, and the keys of an object there.
MEDIA: dict[str, tuple[str, ...]] = {
    "image_url": ("url",),
    "input_audio": ("data", "url"),
    "source": ("data", "url"),
    "multimodal_data": (),
}
ENCODED = (*MEDIA, "image", "images", "init_images", "mask", "control_image")  # keys whose strings are files, not text
FILES = {**MEDIA, "imageList": ("data",)}
# Lists of a request by the name of their limit.
LISTS = {
    "prompts": ("prompt", "input", "content", "documents", "texts", "input_extra"),
    "messages": ("messages",),
    "tools": ("tools", "functions"),
}


class ValueCounter:
    """Count the values of JSON while it arrives, so that nothing is allocated for too many of them.

    An empty list or object counts as one more. A parser that stops at an error has not created more values.

    Attributes
    ----------
    count : int
    """

    def __init__(self) -> None:
        self.count = 1
        self._in_string = self._escaped = False

    def add(self, chunk: bytes) -> None:
        """Add a part of the text."""
        if self._escaped and chunk:  # its first byte is part of an escape
            chunk, self._escaped = chunk[1:], False
        if b"\\" in chunk:
            chunk = chunk.replace(rb"\\", b"").replace(rb"\"", b"")
            self._escaped = chunk.endswith(b"\\")
        parts = chunk.translate(None, OTHER_BYTES).split(QUOTE)
        self.count += sum(map(len, parts[self._in_string :: 2]))
        self._in_string ^= len(parts) % 2 == 0


def containers(value: dict[str, Any] | list[Any]) -> Iterator[tuple[int, dict[str, Any] | list[Any]]]:
    """Yield all objects and lists in a value, itself included, each with its level from 1."""
    pending: list[tuple[int, dict[str, Any] | list[Any]]] = [(1, value)]
    while pending:
        level, item = pending.pop()
        yield level, item
        inner = item.values() if isinstance(item, dict) else item
        pending.extend((level + 1, part) for part in inner if isinstance(part, dict | list))


def check_body(body: dict[str, Any] | list[Any], limits: Limits) -> None:
    """Reject a body that exceeds a limit.

    Raises
    ------
    HTTPException
        400; the message names the field, the limit and its value.
    """
    for limit, names in LISTS.items():
        for name in names:
            value = body.get(name) if isinstance(body, dict) else None
            if isinstance(value, list):  # numbers are the tokens of one prompt
                count = sum(not isinstance(item, int) for item in value)
                _check(count, limits, limit, f"{name} has {{}} items", name)
    text = parts = media = 0
    pending: list[tuple[int, str, dict[str, Any] | list[Any]]] = [(1, "", body)]
    while pending:
        level, key, item = pending.pop()
        if level > limits.depth:
            raise depth_error(limits)
        if isinstance(item, dict):
            text += sum(map(len, item))
        elif key == "content":
            parts += len(item)
        for name, value in item.items() if isinstance(item, dict) else ((key, value) for value in item):
            if isinstance(value, str):
                is_file = name in ENCODED or name in FILES.get(key, ())
                media += is_file
                text += 0 if is_file else len(value)
            elif isinstance(value, dict | list):
                pending.append((level + 1, name, value))
    _check(text, limits, "text", "the body has {} characters of text")
    _check(parts, limits, "parts", "the messages have {} content parts", "messages")
    _check(media, limits, "media", "the body has {} images and audio clips")


def depth_error(limits: Limits) -> HTTPException:
    """Return the error for JSON that is nested too deeply."""
    return http_error(400, f"the body has more than {limits.depth} levels (limits.depth)")


def check_values(count: int, limits: Limits) -> None:
    """Reject a body with too many values, as counted by `ValueCounter`.

    Raises
    ------
    HTTPException
        400.
    """
    _check(count, limits, "values", "the body has {} values")


def _check(count: int, limits: Limits, limit: str, what: str, param: str | None = None) -> None:
    most = getattr(limits, limit)
    if count > most:
        message = f"{what.format(f'{count:,}')}, at most {most:,} are allowed (limits.{limit})"
        raise http_error(400, message, param=param)
