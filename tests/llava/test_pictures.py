"""Llava: one picture in every form gives one answer; what is no picture is refused."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llava.support import encoded, pixels, png, shape
from PIL import Image

from cyllama.errors import ContextFullError, MediaError, UnsupportedError
from cyllama.llama import LlamaModel
from cyllama.llava import Answer, Llava

QUESTION = "What is in this picture?"


# ---------------------------------------------------------------------------------- all forms of a picture


def exif_turned(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    return encoded(image.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)


def wide(array: np.ndarray) -> Image.Image:
    gray = array.astype(np.uint16)[..., 0] * 257
    return Image.fromarray(gray)


COLOUR = pixels("triangle", "green", size=120)
FORMS = {
    "PIL RGB": lambda: shape("triangle", "green", size=120),
    "PIL RGBA": lambda: shape("triangle", "green", size=120).convert("RGBA"),
    "PIL P": lambda: shape("triangle", "green", size=120).convert("P", palette=Image.Palette.ADAPTIVE),
    "bytes": lambda: encoded(shape("triangle", "green", size=120)),
    "bytearray": lambda: bytearray(encoded(shape("triangle", "green", size=120))),
    "file object": lambda: io.BytesIO(encoded(shape("triangle", "green", size=120))),
    "BMP": lambda: encoded(shape("triangle", "green", size=120), "BMP"),
    "WebP": lambda: encoded(shape("triangle", "green", size=120), "WEBP", lossless=True),
    "TIFF": lambda: encoded(shape("triangle", "green", size=120), "TIFF"),
    "EXIF-turned": lambda: exif_turned(shape("triangle", "green", size=120)),
    "HWC": lambda: COLOUR,
    "CHW": lambda: COLOUR.transpose(2, 0, 1),
    "NHWC": lambda: COLOUR[np.newaxis],
    "float": lambda: COLOUR / 255,
    "float32 CHW": lambda: (COLOUR / 255).astype(np.float32).transpose(2, 0, 1),
    "uint16": lambda: COLOUR.astype(np.uint16) * 257,
    "strided": lambda: np.repeat(np.repeat(COLOUR, 2, 0), 3, 1)[::2, ::3],
    "mirrored twice": lambda: np.ascontiguousarray(COLOUR[::-1, ::-1])[::-1, ::-1],
}


@pytest.fixture(scope="module")
def expected(llava: Llava) -> Answer:
    return llava.ask(QUESTION, shape("triangle", "green", size=120), max_tokens=12)


@pytest.mark.parametrize("form", FORMS)
def test_the_same_picture_in_any_form(llava: Llava, expected: Answer, form: str) -> None:
    answer = llava.ask(QUESTION, FORMS[form](), max_tokens=12)
    assert answer.text == expected.text
    assert answer.encoded == 0  # the same content: it is known


def test_a_path_is_a_picture(llava: Llava, expected: Answer, tmp_path: Path) -> None:
    path = tmp_path / "bild ü.png"
    shape("triangle", "green", size=120).save(path)
    for form in (path, str(path)):
        assert llava.ask(QUESTION, form, max_tokens=12).text == expected.text


def test_gray_pictures_in_any_form(llava: Llava) -> None:
    gray = shape(size=120).convert("L")
    array = np.asarray(gray)
    texts = set()
    for form in (
        gray,
        gray.convert("LA"),
        array,
        array[..., np.newaxis],
        np.stack([array] * 3, axis=2),
        array / 255,
        wide(np.asarray(gray)[..., np.newaxis]),
        encoded(gray),
        encoded(wide(np.asarray(gray)[..., np.newaxis])),
    ):
        answer = llava.ask(QUESTION, form, max_tokens=8)
        texts.add(answer.text)
    assert len(texts) == 1
    assert answer.encoded == 0


# ---------------------------------------------------------------------------------- bad pictures


def animated() -> bytes:
    return encoded(shape(), "GIF", save_all=True, append_images=[shape("square")])


@pytest.mark.parametrize(
    ("image", "kind", "message"),
    [
        (b"this is no picture", MediaError, r"images\[0\] is no picture"),
        (encoded(shape())[:300], MediaError, "no picture that can be read"),
        (animated(), MediaError, "2 pictures, expected one"),
        (np.zeros((0, 0, 3), np.uint8), ValueError, "0x0 pixels"),
        (np.zeros((5, 5, 7), np.uint8), ValueError, "shape"),
        (np.full((5, 5, 3), 7.0), ValueError, "values from"),
        (np.full((5, 5, 3), np.nan), ValueError, "values from"),
        (object(), TypeError, "expected a Pillow image"),
        ("/no/such/picture.png", FileNotFoundError, "no/such/picture"),
        ("/tmp", IsADirectoryError, "tmp"),
    ],
)
def test_bad_pictures(llava: Llava, image: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        llava.ask(QUESTION, image)


def test_a_huge_picture(llava: Llava) -> None:
    for image in (png(40_000, 40_000), np.broadcast_to(np.uint8(0), (40_000, 40_000, 3))):
        with pytest.raises(ValueError, match=r"1,600,000,000 pixels, more than 50,000,000.*max_pixels"):
            llava.ask(QUESTION, image)


def test_limits(mmproj_path: Path, smol_model: LlamaModel) -> None:
    with Llava(smol_model, mmproj_path, n_ctx=512, max_pixels=10_000, max_total_pixels=15_000, max_bytes=500) as llava:
        assert llava.ask(QUESTION, shape(size=100), max_tokens=1).media_tokens == 16
        with pytest.raises(ValueError, match="max_pixels"):
            llava.ask(QUESTION, shape(size=101))
        with pytest.raises(ValueError, match=r"up to images\[1\] have 20,000 pixels, more than 15,000"):
            llava.ask(QUESTION, [shape(size=100), shape(size=100)])
        with pytest.raises(ValueError, match="more than 500 bytes"):
            llava.ask(QUESTION, encoded(shape(size=90), "BMP"))
    with pytest.raises(ValueError, match="max_pixels is -1"):
        Llava(smol_model, mmproj_path, max_pixels=-1)


def test_cmyk_is_colour(llava: Llava) -> None:
    red = Image.new("CMYK", (64, 64), (0, 255, 255, 0))
    answer = llava.ask(QUESTION, encoded(red, "JPEG", quality=100), max_tokens=4)
    plain = llava.ask(QUESTION, Image.new("RGB", (64, 64), red.convert("RGB").getpixel((0, 0))), max_tokens=4)
    assert answer.text == plain.text


def test_a_sound_for_a_model_that_only_sees(llava: Llava) -> None:
    with pytest.raises(UnsupportedError, match=r"audio\[0\] is a sound, but the projector takes pictures only"):
        llava.ask("What do you hear?", audio=(16000, np.zeros(16000, np.float32)))


def test_a_question_that_is_too_large(fresh: Llava) -> None:
    with pytest.raises(ContextFullError, match="1024"):
        fresh.ask("word " * 2000, shape())
    with pytest.raises(ContextFullError):
        fresh.ask(QUESTION, [shape()] * 70)
    assert fresh.ask(QUESTION, shape(), max_tokens=2).text
