"""Inpainting: every pixel under black is kept, at any size; masks in every form."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cyllama.media.image import to_mask
from cyllama.sd import StableDiffusion
from cyllama.sd.families import FAMILIES
from cyllama.sd.options import ImageOptions
from cyllama.sd.sizes import inpaint_frame, result_size


@pytest.fixture(scope="module")
def sd(flux_path: Path) -> Iterator[StableDiffusion]:
    with StableDiffusion(flux_path) as found:
        yield found


def noise(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(width).integers(0, 256, (height, width, 3), np.uint8)


def half(width: int, height: int) -> np.ndarray:
    """Return a mask whose right half is white, up to the edge."""
    mask = np.zeros((height, width), np.uint8)
    mask[:, width // 2 :] = 255
    return mask


@pytest.mark.parametrize("size", [(100, 77), (139, 212), (64, 64), (65, 8), (33, 129)])
def test_keeps_every_pixel_under_black(sd: StableDiffusion, size: tuple[int, int]) -> None:
    image, mask = noise(*size), half(*size)
    for options in ({}, {"width": size[0], "height": size[1]}, {"width": size[0]}):
        out = sd.inpaint("x", image, mask, steps=1, seed=1, strength=1.0, output_type="np", **options)
        assert out[0].shape == image.shape
        assert (out.parameters["width"], out.parameters["height"]) == size
        np.testing.assert_array_equal(out[0][mask == 0], image[mask == 0])
        assert (out[0][mask == 255] != image[mask == 255]).mean() > 0.5
        if size[0] * size[1] > 20_000:
            break


def test_black_mask_changes_nothing(sd: StableDiffusion) -> None:
    image = noise(90, 51)
    (out,) = sd.inpaint("x", image, np.zeros((51, 90), np.uint8), steps=1, seed=1, output_type="np")
    np.testing.assert_array_equal(out, image)


def test_large_images_keep_their_size(sd: StableDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an image with more than twice the family's pixels, a reduced version is generated and enlarged."""
    monkeypatch.setattr("cyllama.sd.sizes.TOO_MANY", 0.005)
    image, mask = noise(203, 150), half(203, 150)
    frame = inpaint_frame(ImageOptions(), sd.family, image)
    assert frame.result == (203, 150) and not frame.padded
    monkeypatch.setattr(
        "cyllama.sd.sizes.resolved_size", lambda options, family, image: (96, 64)
    )  # instead of the family's pixels, which take long to generate
    (out,) = sd.inpaint("x", image, mask, steps=1, seed=1, strength=1.0, output_type="np")
    assert out.shape == image.shape
    np.testing.assert_array_equal(out[mask == 0], image[mask == 0])
    assert (out[mask == 255] != image[mask == 255]).any()


def test_another_size_resizes_the_image(sd: StableDiffusion) -> None:
    image, mask = np.full((77, 100, 3), 90, np.uint8), half(100, 77)
    (out,) = sd.inpaint("x", image, mask, steps=1, seed=1, width=128, height=64, output_type="np")
    assert out.shape == (64, 128, 3) and (out[:, :60] == 90).all()


def test_size_of_the_result_is_known_before() -> None:
    family, image = FAMILIES["SD 1.x"], noise(100, 77)
    options = ImageOptions()
    assert result_size(options, family, image, is_inpainting=True) == (100, 77)
    width, height = result_size(options, family, image)
    assert width % family.multiple == height % family.multiple == 0
    assert result_size(options, family, None) == (512, 512)


FORMS = {
    "uint8 0 and 255": lambda mask: mask,
    "uint8 0 and 1": lambda mask: mask // 255,
    "bool": lambda mask: mask > 0,
    "int64 0 and 1": lambda mask: (mask // 255).astype(np.int64),
    "float 0 to 1": lambda mask: mask / 255,
    "half floats": lambda mask: (mask / 255).astype(np.float16),
    "uint16": lambda mask: mask.astype(np.uint16) * 257,
    "three channels of 0 and 1": lambda mask: np.dstack([mask // 255] * 3),
    "a leading 1": lambda mask: (mask // 255)[None],
    "Pillow L": Image.fromarray,
    "Pillow L of 0 and 1": lambda mask: Image.fromarray(mask // 255),
    "Pillow 1": lambda mask: Image.fromarray(mask).convert("1"),
    "Pillow RGB": lambda mask: Image.fromarray(mask).convert("RGB"),
}


@pytest.mark.parametrize("form", FORMS)
def test_masks_have_one_meaning_in_every_form(form: str) -> None:
    mask = half(10, 6)
    np.testing.assert_array_equal(to_mask(FORMS[form](mask)), mask)
    assert to_mask(FORMS[form](np.zeros((6, 10), np.uint8))).max() == 0


def test_gray_masks_keep_their_values() -> None:
    mask = np.arange(60, dtype=np.uint8).reshape(6, 10)
    np.testing.assert_array_equal(to_mask(mask), mask)
