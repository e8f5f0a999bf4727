"""Control tokens in messages stay text: ``<|im_start|>`` in a message is not parsed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

__all__ = ["MARK", "ControlTexts"]

# Noncharacters, which no text contains. The tokenizer of this build removes them, and they split control tokens.
MARK = "\U0010ffff\U0010fffe"
KEY_LENGTH = 32  # characters by which a longer control token is recognized
STEPS = (2, 4, 8)  # lengths at which the search stops unless a control token begins so
TRUSTED = ("system", "developer")


class ControlTexts:
    """The texts of a vocabulary's control tokens.

    Parameters
    ----------
    texts : iterable of str
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._keys = {text[:KEY_LENGTH] for text in texts if len(text) > 1}
        self._beginnings = {key[:n] for n in STEPS for key in self._keys if len(key) > n}
        self._lengths = sorted({*map(len, self._keys), *map(len, self._beginnings)})
        first = "".join(re.escape(character) for character in sorted({key[0] for key in self._keys}))
        self._first = re.compile(f"[{first}]" if first else "(?!)")

    def plain(self, text: str) -> str:
        """Return the text with a mark after the first character of each control token."""
        parts, end = [], 0
        for start in self._starts(text):
            parts.append(text[end : start + 1])
            end = start + 1
        return MARK.join([*parts, text[end:]]) if parts else text

    def plain_messages(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return messages whose control tokens stay text.

        System messages, and a last message of the assistant, which the model continues, are trusted and unchanged.
        """
        last = len(messages) - 1
        return [
            message
            if message["role"] in TRUSTED or (message["role"] == "assistant" and i == last)
            else self._message(message)
            for i, message in enumerate(messages)
        ]

    def _starts(self, text: str) -> Iterator[int]:
        """Yield where control tokens start, also inside others; the time does not depend on their number."""
        for found in self._first.finditer(text):
            start = found.start()
            for length in self._lengths:
                part = text[start : start + length]
                if part in self._keys:
                    yield start
                    break
                if length in STEPS and part not in self._beginnings:
                    break

    def _message(self, message: Mapping[str, Any]) -> dict[str, Any]:
        found = dict(message)
        for name in ("content", "reasoning_content"):
            if isinstance(found.get(name), str):
                found[name] = self.plain(found[name])
        if isinstance(found.get("content"), list):
            found["content"] = self._parts(found["content"])
        if isinstance(found.get("tool_calls"), list):
            found["tool_calls"] = [self._call(call) for call in found["tool_calls"]]
        return found

    def _parts(self, parts: list[Any]) -> list[Any]:
        found = [dict(part) if isinstance(part, Mapping) else part for part in parts]
        texts = [part for part in found if isinstance(part, dict) and isinstance(part.get("text"), str)]
        for part in texts:
            part["text"] = self.plain(part["text"])
        if (
            next(self._starts("".join(part["text"] for part in texts)), None) is not None
        ):  # a control token across parts
            for part in texts[1:]:
                part["text"] = MARK + part["text"]
        return found

    def _call(self, call: Any) -> Any:
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), str):
            return call
        return {**call, "function": {**function, "arguments": self.plain(function["arguments"])}}
