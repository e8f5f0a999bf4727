"""Pictures, sounds and messages for the tests of media in chats."""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import Image, ImageDraw

MODEL, WIDTH = "tiny-random-llama", 32  # and the width of its vectors
ASK = {"max_tokens": 8, "temperature": 0, "logprobs": True, "top_logprobs": 2}
TALK = {"n_ctx": 2048, "n_parallel": 2}


def picture(shape: str, colour: str, size: int = 96) -> Image.Image:
    image = Image.new("RGB", (size, size), "white")
    draw = ImageDraw.Draw(image)
    (draw.ellipse if shape == "circle" else draw.rectangle)(
        (size // 5, size // 5, size * 4 // 5, size * 4 // 5), colour
    )
    return image


CIRCLE, SQUARE = picture("circle", "red"), picture("square", "blue")


def encoded(image: Image.Image, kind: str = "PNG", **more: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **more)
    return out.getvalue()


def shown(image: Image.Image) -> dict[str, Any]:
    """As OpenAI has it."""
    return {
        "type": "image_url",
        "image_url": {"url": f"data:image/png;base64,{base64.b64encode(encoded(image)).decode()}"},
    }


def heard(data: bytes) -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode(), "format": "wav"}}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(content)}
