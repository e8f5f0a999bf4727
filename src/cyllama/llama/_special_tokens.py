"""Control tokens in messages stay text: ``<|im_start|>`` in a message is not parsed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["MARK", "ControlTexts"]

# Noncharacters, which no text contains. The tokenizer of this build removes them, and they split control tokens.
MARK = "\U0010ffff\U0010fffe"
TRUSTED = ("system", "developer")


class ControlTexts:
    """The texts of a vocabulary's control tokens.

    Parameters
    ----------
    texts : iterable of str
    """

    def __init__(self, texts: Iterable[str]) -> None:
        longest_first = sorted({text for text in texts if len(text) > 1}, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def plain(self, text: str) -> str:
        """Return the text with a mark in each control token."""
        while self._pattern.search(text):  # again: the rest may contain another one
            text = self._pattern.sub(lambda found: found[0][0] + MARK + found[0][1:], text)
        return text

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
        if self._pattern.search("".join(part["text"] for part in texts)):  # a control token across parts
            for part in texts[1:]:
                part["text"] = MARK + part["text"]
        return found

    def _call(self, call: Any) -> Any:
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), str):
            return call
        return {**call, "function": {**function, "arguments": self.plain(function["arguments"])}}
