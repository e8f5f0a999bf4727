"""Images in requests of every protocol: one decoder, whose limits are not those of generated images."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
import requests
from media.received_files import png_header
from PIL import Image
from server.conftest import png
from server.running import Server

from cyllama.llama._media import MediaInput
from cyllama.media.message_parts import MediaRules

SVG = b"<svg xmlns='http://www.w3.org/2000/svg'/>"
ROUTES: dict[str, tuple[str, Callable[[str], dict[str, Any]]]] = {
    "chat": (
        "/v1/chat/completions",
        lambda text: _messages({"type": "image_url", "image_url": {"url": text}}),
    ),
    "chat, short form": (
        "/v1/chat/completions",
        lambda text: _messages({"type": "image_url", "image_url": text}),
    ),
    "responses": (
        "/v1/responses",
        lambda text: {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": text}]}]},
    ),
    "messages": (
        "/v1/messages",
        lambda text: {**_messages({"type": "image", "source": {"type": "base64", "data": text}}), "max_tokens": 2},
    ),
    "messages, a URL": (
        "/v1/messages",
        lambda text: {**_messages({"type": "image", "source": {"type": "url", "url": text}}), "max_tokens": 2},
    ),
    "native": (
        "/completion",
        lambda text: {"prompt": {"prompt_string": "<__media__> what?", "multimodal_data": [text]}, "n_predict": 1},
    ),
    "template": ("/apply-template", lambda text: _messages({"type": "image_url", "image_url": {"url": text}})),
    "ollama chat": ("/api/chat", lambda text: {"messages": [{"role": "user", "content": "x", "images": [text]}]}),
    "ollama": ("/api/generate", lambda text: {"prompt": "x", "images": [text]}),
    "embeddings": (
        "/embeddings",
        lambda text: {"content": {"prompt_string": "<__media__>", "multimodal_data": [text]}, "model": "minilm"},
    ),
    "A1111 image": ("/sdapi/v1/img2img", lambda text: {"prompt": "x", "init_images": [text], "steps": 1, "seed": 1}),
    "A1111 mask": (
        "/sdapi/v1/img2img",
        lambda text: {"prompt": "x", "init_images": [WHITE], "mask": text, "steps": 1, "seed": 1},
    ),
}
WHITE = base64.b64encode(png(size=(64, 64))).decode()
FORMS: dict[str, Callable[[bytes], str]] = {
    "lines": lambda data: base64.encodebytes(data).decode(),
    "no padding": lambda data: base64.b64encode(data).decode().rstrip("="),
    "alphabet for URLs": lambda data: base64.urlsafe_b64encode(data).decode(),
    "no type": lambda data: f"data:;base64,{base64.b64encode(data).decode()}",
    "a charset": lambda data: f"data:image/png;charset=utf-8;base64,{base64.b64encode(data).decode()}",
    "percent-encoded": lambda data: f"data:image/png,{quote(data)}",
}


def _messages(part: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [part, {"type": "text", "text": "What?"}]}], "max_tokens": 1}


def post(server: Server, key: dict[str, str], route: str, text: str) -> requests.Response:
    path, body = ROUTES[route]
    fields = body(text)
    fields.setdefault("model", "smol")
    if path.startswith("/sdapi"):
        del fields["model"]
    return requests.post(server.url + path, json=fields, headers=key, timeout=120)


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_reads_every_form(server: Server, key: dict[str, str], route: str) -> None:
    """A model without a projector refuses an image only after it was decoded, so the error is about the model."""
    data = png("black", (64, 64))
    for name, form in FORMS.items():
        found = post(server, key, route, form(data))
        if found.status_code != 200:
            assert found.status_code in (400, 501), (name, found.text)
            assert any(word in found.text for word in ("projector", "mmproj", "multimodal")), (name, found.text)


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_says_what_is_wrong(server: Server, key: dict[str, str], route: str) -> None:
    for text, word, status in (
        (base64.b64encode(SVG).decode(), "SVG", 400),
        (f"data:image/svg+xml,{quote(SVG)}", "SVG", 400),
        (f"data:application/pdf;base64,{base64.b64encode(b'%PDF-1.7 x').decode()}", "PDF", 400),
        ("http://127.0.0.1:1/a.png", "URL", 400),
        (base64.b64encode(png_header(8000, 6300)).decode(), "50,000,000", 413),
    ):
        found = post(server, key, route, text)
        assert found.status_code == status and word in found.text, (word, found.text)


@pytest.mark.parametrize("route", ["chat", "ollama chat", "A1111 image", "A1111 mask"])
def test_received_images_may_be_larger_than_generated_ones(server: Server, key: dict[str, str], route: str) -> None:
    """The server generates up to a megapixel; a photo of a phone has twelve."""
    file = io.BytesIO()
    Image.new("RGB", (4032, 3024), "gray").save(file, "JPEG")
    found = post(server, key, route, base64.b64encode(file.getvalue()).decode())
    assert found.status_code in (200, 400, 501) and "pixels, more than" not in found.text, found.text[:300]
    if route == "A1111 image":
        (text,) = found.json()["images"]
        with Image.open(io.BytesIO(base64.b64decode(text))) as image:
            assert image.width * image.height <= 1048576


def test_large_photo_and_mask_are_reduced_alike(server: Server, key: dict[str, str]) -> None:
    files = []
    for kind, image in (("JPEG", Image.new("RGB", (2001, 1501), "gray")), ("PNG", Image.new("L", (2001, 1501), 0))):
        file = io.BytesIO()
        image.save(file, kind)
        files.append(base64.b64encode(file.getvalue()).decode())
    body = {"prompt": "x", "init_images": files[:1], "mask": files[1], "steps": 1, "width": 64, "height": 64}
    found = requests.post(server.url + "/sdapi/v1/img2img", json=body, headers=key, timeout=120)
    assert found.status_code == 200, found.text[:300]


def test_pixels_of_all_images_of_a_request_are_limited_before_decoding() -> None:
    """Small files may declare many pixels each; their sum counts, not what remains after they are reduced."""
    media = MediaInput(MediaRules(), vision=True, audio=False)
    file = io.BytesIO()
    Image.new("1", (7000, 7000)).save(file, "PNG")
    part = {"type": "image", "image": file.getvalue()}
    with pytest.raises(ValueError, match=r"content\[4\].*245,000,000 pixels.*max_total_pixels"):
        media.for_upstream([{"role": "user", "content": [part] * 5}], own_form=True)
