"""Images, audio and messages for the tests of media in chats."""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import Image, ImageDraw

MODEL, WIDTH = "tiny-random-llama", 32  # and its embedding length
GREEDY = {"max_tokens": 8, "temperature": 0, "logprobs": True, "top_logprobs": 2}
SETTINGS = {"n_ctx": 2048, "n_parallel": 2}


def draw(shape: str, colour: str, size: int = 96) -> Image.Image:
    """Return a shape on white."""
    image = Image.new("RGB", (size, size), "white")
    pen = ImageDraw.Draw(image)
    (pen.ellipse if shape == "circle" else pen.rectangle)((size // 5, size // 5, size * 4 // 5, size * 4 // 5), colour)
    return image


CIRCLE, SQUARE = draw("circle", "red"), draw("square", "blue")


def encoded(image: Image.Image, kind: str = "PNG", **more: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **more)
    return out.getvalue()


def image_part(image: Image.Image) -> dict[str, Any]:
    """Return OpenAI's form of an image."""
    return {
        "type": "image_url",
        "image_url": {"url": f"data:image/png;base64,{base64.b64encode(encoded(image)).decode()}"},
    }


def audio_part(data: bytes) -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode(), "format": "wav"}}


def text_part(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(content)}
