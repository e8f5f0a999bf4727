"""A matrix of files that clients send: each is an image, or an error that says what it is, in bounded memory."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from media.received_files import IMAGES, ORIENTATIONS, OTHERS, TOO_LARGE, photo
from PIL import Image
from starlette.exceptions import HTTPException

from cyllama.errors import MediaError
from cyllama.media.image import to_alpha, to_mask, to_pixels
from cyllama.server.limits import Limits
from cyllama.server.received_images import check_image, read_alpha, read_image, read_mask

LIMITS = Limits()
MIB = 1 << 20
CORNERS = ((8, 12), (8, 36), (24, 12), (24, 36))  # within each colour of the photo


@pytest.fixture(autouse=True, scope="module")
def no_program() -> Iterator[None]:
    """Fail if a program is started."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", lambda *arguments, **_: pytest.fail(f"started {arguments}"))
        patch.setattr(os, "system", lambda command: pytest.fail(f"started {command}"))
        yield


def peak(reset: bool = False) -> int:
    """Return the largest resident memory since the last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def rejection(data: bytes) -> HTTPException:
    with pytest.raises(HTTPException) as error:
        read_image(data, LIMITS, "image")
    return error.value


def test_matrix_is_large() -> None:
    assert len(IMAGES) + len(ORIENTATIONS) + len(OTHERS) + len(TOO_LARGE) >= 60


@pytest.mark.parametrize("name", IMAGES)
def test_reads_every_format_and_mode(name: str) -> None:
    data = IMAGES[name]()
    check_image(data, LIMITS.received_pixels, "image")
    pixels = read_image(data, LIMITS, "image")
    assert pixels.shape == (32, 48, 3) and pixels.dtype == np.uint8
    expected = photo()
    if name.endswith((" L", " LA", " F", "I;16", " 1")):
        red = name.endswith("I;16")
        gray = expected[..., 0] if red else np.asarray(Image.fromarray(expected).convert("L"))
        expected = np.repeat(gray[..., None], 3, axis=2)
    for y, x in CORNERS:
        if not name.endswith(" 1"):
            np.testing.assert_allclose(pixels[y, x].astype(int), expected[y, x], atol=12, err_msg=name)
    assert read_mask(data, LIMITS).shape == (32, 48)


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_applies_every_orientation(name: str) -> None:
    """Image and mask are upright; so is an image that is reduced while it is decoded."""
    data = ORIENTATIONS[name]()
    for limits in (LIMITS, Limits(pixels=600)):
        pixels = read_image(data, limits, "image")
        mask = read_mask(data, limits)
        height, width = pixels.shape[:2]
        assert width > height and mask.shape == (height, width) and height * width <= limits.pixels
        for y, x in CORNERS:
            found = pixels[y * height // 32, x * width // 48].astype(int)
            np.testing.assert_allclose(found, photo()[y, x], atol=16, err_msg=name)


@pytest.mark.parametrize("name", TOO_LARGE)
def test_rejects_large_images_before_decoding(name: str) -> None:
    data = TOO_LARGE[name]()
    before = peak(reset=True)
    for call in (
        lambda: read_image(data, LIMITS, "image"),
        lambda: read_mask(data, LIMITS),
        lambda: read_alpha(data, LIMITS, "image"),
        lambda: check_image(data, LIMITS.received_pixels, "image"),
    ):
        with pytest.raises(HTTPException) as error:
            call()
        assert error.value.status_code == 413
    with pytest.raises(ValueError, match="more than 50,000,000"):
        to_pixels(data)
    assert peak() - before < 64 * MIB


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", OTHERS)
def test_says_what_other_files_are(name: str) -> None:
    make, word = OTHERS[name]
    data = make()
    before = peak(reset=True)
    error = rejection(data)
    assert error.status_code == 400 and word in str(error.detail)
    for convert in (to_pixels, to_mask, to_alpha):
        with pytest.raises(MediaError, match=word):
            convert(data)
    assert peak() - before < 64 * MIB


@pytest.mark.parametrize(
    ("kind", "options", "most"), [("JPEG", {"quality": 80}, 130), ("PNG", {"compress_level": 1}, 320)]
)
def test_decodes_50_megapixels_in_bounded_memory(kind: str, options: dict[str, int], most: int) -> None:
    """A JPEG file is reduced while it is decoded; other formats need 4 bytes for each pixel, and nothing beyond."""
    file = io.BytesIO()
    Image.new("RGB", (8160, 6120), (200, 40, 40)).save(file, kind, **options)
    data = file.getvalue()
    before = peak(reset=True)
    pixels = read_image(data, LIMITS, "image")
    used = peak() - before
    assert pixels.shape[0] * pixels.shape[1] <= LIMITS.pixels
    np.testing.assert_allclose(pixels[900, 1200].astype(int), (200, 40, 40), atol=3)
    assert used < most * MIB


def test_image_and_mask_have_one_size_in_every_format() -> None:
    """An image and its mask are reduced alike, whether their decoders reduce or not."""
    limits = Limits(pixels=10_000)
    for size in ((1201, 799), (333, 1000), (160, 90), (4033, 17)):
        shapes = set()
        for kind in ("JPEG", "PNG", "WEBP"):
            file = io.BytesIO()
            Image.new("RGB", size, "gray").save(file, kind)
            shapes |= {read_image(file.getvalue(), limits, "image").shape[:2], read_mask(file.getvalue(), limits).shape}
        assert len(shapes) == 1 and np.prod(shapes.pop()) <= limits.pixels
