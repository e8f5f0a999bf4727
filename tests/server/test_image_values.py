"""OpenAI's image routes with its own client: every documented value, edits, streams, links, photos from phones."""

from __future__ import annotations

import base64
import io
import typing
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import openai
import pytest
import requests
from openai import OpenAI
from openai.types import image_create_variation_params, image_edit_params, image_generate_params
from PIL import Image
from server.conftest import KEY, png
from server.running import Server, running_server

from cyllama.server.config import ModelEntry
from cyllama.server.image_jobs import ImageRequest
from cyllama.server.image_links import ImageLinks
from cyllama.server.limits import Limits
from cyllama.server.routes._image_events import due_steps
from cyllama.server.routes._image_fields import Output
from cyllama.server.routes.images import _decoded, _Task

CONFIG = f"""
api_keys = ["{KEY}"]
image_link_seconds = 60

[models.shapes]
kind = "sd"
model = "tiny-shapes"
"""
FAST = {"steps": 1, "seed": 1}
# Values of the official client that are refused, and a word of the reason.
REFUSED = {
    ("background", "transparent"): "opaque",
    ("input_fidelity", "high"): "strength",
}
# Values that are accepted and change nothing, which the response says.
WARNED = {("quality", "low"), ("quality", "high"), ("quality", "hd"), ("style", "vivid"), ("style", "natural")}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start a server with a diffusion model and links to its images."""
    file = tmp_path_factory.mktemp("images") / "models.toml"
    file.write_text(CONFIG)
    with running_server("--config", file) as found:
        yield found
        assert found.process.poll() is None, "".join(found.errors)
        assert not [line for line in found.errors if "Traceback" in line], "".join(found.errors)


@pytest.fixture(scope="module")
def painter(images: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{images.url}/v1", api_key=KEY, max_retries=0) as found:
        yield found


def opened(text: str | None) -> Image.Image:
    assert text is not None
    image = Image.open(io.BytesIO(base64.b64decode(text)))
    image.load()
    return image


def call(painter: OpenAI, method: str, fields: dict[str, Any]) -> Any:
    size = {"size": "64x64", **fields}
    if method == "generate":
        return painter.images.generate(prompt="a red circle", **size, extra_body=FAST)
    if method == "edit":
        return painter.images.edit(image=png(size=(64, 64)), prompt="a red circle", **size, extra_body=FAST)
    return painter.images.create_variation(image=png(size=(64, 64)), **size, extra_body=FAST)


def literals(hint: Any) -> Iterator[Any]:
    """Yield the documented values of a field's type."""
    if typing.get_origin(hint) is Literal:
        yield from typing.get_args(hint)
        return
    for part in typing.get_args(hint):  # of a union, of Required[...]
        yield from literals(part)


PARAMS = {
    "generate": image_generate_params.ImageGenerateParamsNonStreaming,
    "edit": image_edit_params.ImageEditParamsNonStreaming,
    "variation": image_create_variation_params.ImageCreateVariationParams,
}
OTHER_VALUES = {  # of fields whose types are not literals
    "n": [1, 2],
    "output_compression": [100],
    "partial_images": [0],
    "user": ["someone"],
    "size": ["64X64", "64\u00d764"],
}
NO_VALUES = ("prompt", "image", "mask", "model")  # texts, files and names of models


def documented(method: str) -> Iterator[tuple[str, Any]]:
    for name, hint in typing.get_type_hints(PARAMS[method]).items():
        if name not in NO_VALUES:
            values = [*literals(hint), *OTHER_VALUES.get(name, ())]
            assert values, f"{method}: {name} has no value to try"
            yield from ((name, value) for value in values if not _is_large(value))


def _is_large(value: object) -> bool:
    """Return whether a value is a size that takes long to generate."""
    return isinstance(value, str) and value[0].isdigit() and value not in ("64X64", "64\u00d764")


@pytest.mark.parametrize("method", PARAMS)
def test_every_documented_value_is_accepted_or_refused_by_name(painter: OpenAI, method: str) -> None:
    """Each request has a value of every field, so that there are as many requests as a field has values."""
    accepted: dict[str, list[Any]] = {}
    for name, value in documented(method):
        if (name, value) in REFUSED:
            with pytest.raises(openai.BadRequestError, match=REFUSED[name, value]) as error:
                call(painter, method, {name: value})
            assert error.value.param == name and repr(value) in str(error.value)
        else:
            accepted.setdefault(name, []).append(value)
    assert {"response_format", "size", "n"} <= set(accepted)
    for i in range(max(map(len, accepted.values()))):
        fields = {name: values[i % len(values)] for name, values in accepted.items()}
        found = call(painter, method, fields)
        assert found.data, fields
        warned = {item for item in fields.items() if item in WARNED}
        assert len(getattr(found, "warnings", [])) == len(warned), fields
        for name, _ in warned:
            assert any(text.startswith(f"{name} is ") for text in found.warnings)


def test_values_have_effects(painter: OpenAI) -> None:
    assert call(painter, "generate", {"size": "72X64"}).size == "72x64"
    assert call(painter, "generate", {"size": "auto"}).size == "192x192"  # of the model
    assert len(call(painter, "edit", {"n": 2}).data) == 2
    for kind in ("png", "jpeg", "webp"):
        found = call(painter, "generate", {"output_format": kind})
        assert opened(found.data[0].b64_json).format == kind.upper() and found.output_format == kind
    small, large = (
        len(call(painter, "generate", {"output_format": "jpeg", "output_compression": n}).data[0].b64_json)
        for n in (5, 95)
    )
    assert small < large
    with pytest.raises(openai.BadRequestError, match="output_compression is 5, expected 100 for png"):
        call(painter, "generate", {"output_compression": 5})


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"quality": "best"}, "quality"),
        ({"style": "loud"}, "style"),
        ({"response_format": "file"}, "response_format"),
        ({"size": "64 x 64"}, "size"),
        ({"output_format": "gif"}, "output_format"),
        ({"background": 1}, "background"),
        ({"user": 3}, "user"),
        ({"n": 0}, "batch_size"),
    ],
)
def test_rejects_other_values_by_name(painter: OpenAI, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        call(painter, "generate", fields)
    assert error.value.param == param


def test_variation_takes_one_image(painter: OpenAI, images: Server, key: dict[str, str]) -> None:
    found = painter.images.create_variation(image=png("red", (64, 64)), n=2, extra_body={**FAST, "strength": 0.3})
    assert found.data is not None and len(found.data) == 2
    assert np.asarray(opened(found.data[0].b64_json)).shape == (64, 64, 3)
    files = [("image", ("a.png", png())), ("image", ("b.png", png()))]
    for more, fields in ((files, {}), (files[:1], {"stream": "true"}), ([("mask", ("m.png", png()))], {})):
        response = requests.post(images.url + "/v1/images/variations", files=more, data=fields, headers=key, timeout=60)
        assert response.status_code == 400


# ----------------------------------------------------------------------------------------------- links


def test_links_end_in_the_image(painter: OpenAI, images: Server, key: dict[str, str]) -> None:
    found = call(painter, "generate", {"response_format": "url", "n": 2, "output_format": "webp"})
    urls = [image.url for image in found.data]
    assert len(set(urls)) == 2 and all(image.b64_json is None for image in found.data)
    expected = call(painter, "generate", {"n": 2, "output_format": "webp"})
    for url, image in zip(urls, expected.data, strict=True):
        assert url.startswith(images.url)
        response = requests.get(url, headers=key, timeout=60)
        assert response.status_code == 200 and response.headers["content-type"] == "image/webp"
        assert response.content == base64.b64decode(image.b64_json)
    assert requests.get(urls[0], timeout=60).status_code == 401  # without a key
    assert requests.get(urls[0][:-20] + ".webp", headers=key, timeout=60).status_code == 404
    with pytest.raises(openai.BadRequestError, match="events contain the images"):
        list(painter.images.generate(prompt="x", response_format="url", stream=True, extra_body=FAST))


def test_links_have_an_end_and_a_size() -> None:
    links = ImageLinks(60, max_bytes=100)
    names = [links.add(bytes(40), "image/png") for _ in range(3)]
    assert [links.find(name) is None for name in names] == [True, False, False]
    assert links.find("") is None and links.find("x") is None
    ended = ImageLinks(0)
    assert ended.find(ended.add(b"x", "image/png")) is None


# ----------------------------------------------------------------------------------------------- streams


@pytest.mark.parametrize("count", [1, 3])
def test_streams_the_stated_previews_of_each_image(painter: OpenAI, count: int) -> None:
    more = {"steps": 4, "seed": 1}
    events: list[Any] = list(
        painter.images.generate(
            prompt="a blue square", size="128x96", n=2, stream=True, partial_images=count, extra_body=more
        )
    )
    previews = [event for event in events if event.type == "image_generation.partial_image"]
    assert [(event.image_index, event.partial_image_index) for event in previews] == [
        (image, i) for image in range(2) for i in range(count)
    ]
    assert (
        {opened(event.b64_json).size for event in events}
        == {(128, 96)}
        == {tuple(map(int, event.size.split("x"))) for event in events}
    )
    assert [event.type for event in events[-2:]] == ["image_generation.completed"] * 2
    assert len(events) == 2 * count + 2


def test_streams_previews_of_an_edit(painter: OpenAI) -> None:
    mask = Image.new("RGBA", (100, 77), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 0, 50, 77))
    file = io.BytesIO()
    mask.save(file, "PNG")
    events: list[Any] = list(
        painter.images.edit(
            image=png(size=(100, 77)), mask=file.getvalue(), prompt="x", stream=True, partial_images=2,
            extra_body={"steps": 3, "strength": 1.0},
        )
    )  # fmt: skip
    assert [event.type.partition(".")[2] for event in events] == ["partial_image"] * 2 + ["completed"]
    assert {opened(event.b64_json).size for event in events} == {(100, 77)}


@pytest.mark.parametrize("steps", [1, 2, 4, 7, 20, 150])
def test_previews_are_spread_evenly(steps: int) -> None:
    for count in range(151):
        found = sorted(due_steps(count, steps))
        assert len(found) == min(count, steps)
        assert all(1 <= step <= steps for step in found)
        if 0 < count < steps:
            assert found[-1] < steps and max(np.diff([0, *found, steps])) <= steps // (count + 1) + 1


# ------------------------------------------------------------------------------------------------ edits


def test_holes_of_an_image_are_the_mask(painter: OpenAI) -> None:
    """A transparent part is generated, the rest is kept; half-transparent pixels alone are no mask."""
    pixels = np.zeros((77, 100, 4), np.uint8)
    pixels[...] = (10, 120, 220, 255)
    pixels[:, :40, 3] = 0
    files = [io.BytesIO(), io.BytesIO()]
    Image.fromarray(pixels).save(files[0], "PNG")
    options = {"steps": 2, "seed": 1, "strength": 1.0}
    found = painter.images.edit(image=files[0].getvalue(), prompt="a red circle", extra_body=options)
    assert found.data is not None and found.size == "100x77"
    out = np.asarray(opened(found.data[0].b64_json))
    np.testing.assert_array_equal(out[:, 40:], pixels[:, 40:, :3])
    assert (out[:, :40] != 255).any()
    pixels[..., 3] = 200
    Image.fromarray(pixels).save(files[1], "PNG")
    whole = painter.images.edit(image=files[1].getvalue(), prompt="a red circle", extra_body=options)
    assert whole.data is not None
    assert whole.size == "96x80"  # of image to image, which the model rounds


def test_mask_of_another_size_is_named(painter: OpenAI) -> None:
    with pytest.raises(
        openai.BadRequestError, match="mask has 64x64 pixels, expected those of image: 128x128"
    ) as error:
        painter.images.edit(image=png(), mask=png("#0000", (64, 64), "RGBA"), prompt="x", extra_body=FAST)
    assert error.value.param == "mask"


def test_edits_the_photo_of_a_phone(painter: OpenAI, images: Server) -> None:
    """A photo of 50 megapixels, lying on its side, is upright in the result; the server's memory stays bounded."""
    photo = Image.new("RGB", (8160, 6120), "white")
    photo.paste("blue", (0, 0, 4080, 6120))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown rotated by 90 degrees: the left half becomes the upper one
    file = io.BytesIO()
    photo.save(file, "JPEG", exif=exif, quality=80)
    call(painter, "edit", {})  # loads the model
    before = images.rss()
    found = painter.images.edit(
        image=file.getvalue(), prompt="x", size="48x64", extra_body={"steps": 2, "strength": 0.1, "seed": 1}
    )
    assert found.data is not None
    out = np.asarray(opened(found.data[0].b64_json)).astype(int)
    assert out.shape == (64, 48, 3)
    assert out[:20, :, 2].mean() > out[:20, :, 0].mean() + 60 and out[-20:, :, 0].mean() > 150
    assert images.rss() - before < 200 << 20


# ---------------------------------------------------------------------------------------------- control


def test_control_image_is_decoded_and_needs_a_network(painter: OpenAI, images: Server, key: dict[str, str]) -> None:
    """Over JSON and in forms; a model without ControlNet names the field."""
    url, text = images.url + "/v1/images/generations", base64.b64encode(png()).decode()
    for value, word in ((text, "control_net"), (text[:40], "control_image"), ("/etc/passwd", "base64"), (3, "base64")):
        response = requests.post(url, json={"prompt": "x", "control_image": value, **FAST}, headers=key, timeout=60)
        assert response.status_code in (400, 501) and word in response.text, response.text
    for strength in (2, "x", True):
        body = {"prompt": "x", "control_image": text, "control_strength": strength, **FAST}
        response = requests.post(url, json=body, headers=key, timeout=60)
        assert response.status_code == 400 and response.json()["error"]["param"] == "control_strength"
    response = requests.post(url, json={"prompt": "x", "control_strength": 0.5, **FAST}, headers=key, timeout=60)
    assert response.status_code in (400, 501) and "control_strength" in response.text
    files = {"image": ("a.png", png()), "control_image": ("c.png", png())}
    response = requests.post(
        images.url + "/v1/images/edits", files=files, data={"prompt": "x", "steps": "1"}, headers=key, timeout=60
    )
    assert response.status_code in (400, 501) and "control_net" in response.text


def test_control_image_reaches_the_engine() -> None:
    request = ImageRequest("x", {"control_strength": 0.5})
    output = Output("png", None, False, 0, "image_generation", False)
    entry = ModelEntry(name="x", kind="sd", model="tiny-shapes")
    found = _decoded(_Task(entry, request, output, "", control=png("red", (20, 10))), Limits())
    assert found.options["control_image"].shape == (10, 20, 3) and found.options["control_strength"] == 0.5
