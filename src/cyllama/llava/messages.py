"""What goes into a question: texts, pictures and sounds, in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cyllama.media.parts import Media, MediaRules, given_media, part_media

__all__ = ["Message", "conversation", "question"]

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Message:
    """A message: its texts, pictures and sounds in order."""

    role: str
    parts: tuple[str | Media, ...]


def question(
    prompt: str | Sequence[Any], images: Any, audio: Any, system: str | None, rules: MediaRules, cancel: Any = None
) -> list[Message]:
    """A question as messages: `images` and `audio` stand before the text.

    Raises
    ------
    TypeError, ValueError
    """
    media = [*given_media(images, "image", "images"), *given_media(audio, "audio", "audio")]
    text = _parts(prompt, "prompt", rules, cancel)
    if system is not None and not isinstance(system, str):
        raise TypeError(f"system is {system!r:.200}, expected a str or None")
    found = [Message("system", (system,))] if system is not None else []
    return [*found, Message("user", (*media, *text))]


def conversation(messages: Sequence[Mapping[str, Any]], rules: MediaRules, cancel: Any = None) -> list[Message]:
    """Messages with ``role`` and ``content``, a text or a list of parts.

    Raises
    ------
    TypeError, ValueError
        A message or a part is not what it has to be, or the rules forbid it.
    UnsupportedError, MediaError, CancelledError
    """
    if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence):
        raise TypeError(f"messages is {messages!r:.200}, expected a list of messages")
    if not messages:
        raise ValueError("messages is empty, expected at least one")
    found = []
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise TypeError(f"messages[{i}] is {message!r:.200}, expected a mapping with role and content")
        role = message.get("role")
        if role not in ROLES:
            raise ValueError(f"messages[{i}] has the role {role!r}, expected one of {', '.join(ROLES)}")
        found.append(Message(role, _parts(message.get("content"), f"messages[{i}].content", rules, cancel)))
    return found


def _parts(content: Any, name: str, rules: MediaRules, cancel: Any) -> tuple[str | Media, ...]:
    if isinstance(content, str):
        return (content,)
    if not isinstance(content, list | tuple):
        raise TypeError(f"{name} is {content!r:.200}, expected a text or a list of parts")
    return tuple(_part(part, f"{name}[{i}]", rules, cancel) for i, part in enumerate(content))


def _part(part: Any, name: str, rules: MediaRules, cancel: Any) -> str | Media:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        return Media("image", part, name)  # Pillow images, arrays, bytes, paths of pathlib: the caller's own
    if part.get("type") in ("text", "input_text"):
        text = part.get("text")
        if not isinstance(text, str):
            raise TypeError(f"{name}.text is {text!r:.200}, expected a str")
        return text
    found = part_media(part, name, rules, cancel)
    if found is None:
        raise ValueError(f"{name} is {part!r:.200}, expected a part with a text, a picture or a sound")
    return found
