"""Conversion of images in every form to the same pixels."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cyllama.errors import MediaError
from cyllama.media.image import fitted, to_mask, to_pil, to_pixels, to_pixels_list


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """Return a gradient with an edge: 24 wide, 16 high, with three different channels."""
    y, x = np.mgrid[:16, :24]
    return np.stack([x * 10, y * 15, (x > 11) * 200], axis=2).astype(np.uint8)


def encoded(pixels: np.ndarray, kind: str = "PNG", **more: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **more)
    return out.getvalue()


# ---------------------------------------------------------------------------------------------- arrays


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a,
        lambda a: a.astype(np.uint16) * 257,
        lambda a: a.astype(np.int64),
        lambda a: a.astype(np.int8) if a.max() < 128 else a.astype(np.int16),
        lambda a: a.astype(np.float32) / 255,
        lambda a: a.astype(np.float64) / 255,
        lambda a: a.astype(">f4") / 255,
        lambda a: a.transpose(2, 0, 1),
        lambda a: (a.astype(np.float32) / 255).transpose(2, 0, 1)[None],
        lambda a: a[None],
        lambda a: np.dstack([a, np.full(a.shape[:2], 255, np.uint8)]),
        lambda a: np.asfortranarray(a),
        lambda a: np.repeat(a, 3, axis=1)[:, ::3],
        lambda a: a[::-1][::-1],
        lambda a: np.ma.masked_array(a),
    ],
)
def test_accepts_arrays_of_every_layout(photo: np.ndarray, change: object) -> None:
    pixels = to_pixels(change(photo))
    assert pixels.flags.c_contiguous and pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, photo)


def test_accepts_half_floats(photo: np.ndarray) -> None:
    np.testing.assert_allclose(to_pixels((photo / 255).astype(np.float16)).astype(int), photo, atol=1)


def test_accepts_array_interface(photo: np.ndarray) -> None:
    class Tensor:
        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            return photo.transpose(2, 0, 1)

    class Broken:
        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            raise RuntimeError("on another device")

    np.testing.assert_array_equal(to_pixels(Tensor()), photo)
    with pytest.raises(TypeError, match="on another device"):
        to_pixels(Broken())


@pytest.mark.parametrize("shape", [(16, 24), (16, 24, 1), (1, 16, 24)])
def test_accepts_grayscale_arrays(photo: np.ndarray, shape: tuple[int, ...]) -> None:
    gray = photo[..., 0]
    np.testing.assert_array_equal(to_pixels(gray.reshape(shape)), np.dstack([gray] * 3))
    np.testing.assert_array_equal(to_mask(gray.reshape(shape)), gray)


def test_accepts_boolean_masks() -> None:
    mask = np.zeros((4, 4), bool)
    mask[1] = True
    assert to_mask(mask)[1].tolist() == [255] * 4 and to_mask(mask)[0].max() == 0


@given(st.integers(0, 65535))
@settings(max_examples=200)
def test_rounds_16_bits(value: int) -> None:
    assert to_pixels(np.full((1, 1), value, np.uint16))[0, 0, 0] == round(value / 257)


def test_uint8_arrays_are_not_copied(photo: np.ndarray) -> None:
    assert np.shares_memory(to_pixels(photo), photo)


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (np.zeros((5, 4, 5), np.uint8), "shape"),
        (np.zeros((2, 4, 4, 3), np.uint8), "shape"),
        (np.zeros(4, np.uint8), "shape"),
        (np.zeros((0, 4, 3), np.uint8), "at least one"),
        (np.full((4, 4, 3), 300), "0 to 255"),
        (np.full((4, 4, 3), -1), "0 to 255"),
        (np.full((4, 4, 3), 128.0), "0 to 1"),
        (np.full((4, 4, 3), np.nan), "0 to 1"),
        (np.zeros((4, 4, 3), complex), "dtype"),
        (np.full((4, 4), "x"), "dtype"),
    ],
)
def test_rejects_invalid_arrays(bad: np.ndarray, match: str) -> None:
    with pytest.raises(ValueError, match=f"^photo .*{match}"):
        to_pixels(bad, "photo")


@pytest.mark.parametrize("bad", [None, 3, 1.5, [[1, 2]], object()])
def test_rejects_other_types(bad: object) -> None:
    with pytest.raises(TypeError, match="expected a Pillow image"):
        to_pixels(bad)


# ---------------------------------------------------------------------------------------------- Pillow


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"])
def test_accepts_pillow_modes_with_colour(photo: np.ndarray, mode: str) -> None:
    image = Image.fromarray(photo)
    if mode == "LAB":
        from PIL import ImageCms

        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(image, srgb, lab, outputMode="LAB")
    else:
        image = image.convert(mode)
    atol = {"YCbCr": 3, "HSV": 12, "LAB": 32}.get(mode, 0)
    np.testing.assert_allclose(to_pixels(image).astype(int), photo, atol=atol)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "I", "F", "I;16", "I;16B"])
def test_accepts_pillow_modes_without_colour(mode: str) -> None:
    gray = np.tile(np.array([0, 64, 128, 255], np.uint8), (4, 1))
    image = Image.fromarray(gray)
    if mode == "I;16B":
        image = Image.frombytes("I;16B", (4, 4), (gray.astype(">u2") * 257).tobytes())
    elif mode in ("I", "I;16"):
        image = Image.fromarray(gray.astype(np.uint16) * 257).convert(mode)
    elif mode == "PA":
        image = image.convert("LA").convert("PA")
    else:
        image = image.convert(mode)
    expected = np.asarray(image.convert("L")) if mode == "1" else gray
    np.testing.assert_array_equal(to_pixels(image), np.dstack([expected] * 3))


def test_accepts_palettes(photo: np.ndarray) -> None:
    few = (photo // 128 * 128).astype(np.uint8)
    palette = Image.fromarray(few).convert("P", palette=Image.Palette.ADAPTIVE)
    np.testing.assert_array_equal(to_pixels(palette), np.asarray(palette.convert("RGB")))
    np.testing.assert_array_equal(to_pixels(encoded(few, "GIF")), few)


def test_transparent_pixels_become_white(photo: np.ndarray) -> None:
    alpha = np.full((16, 24, 1), 255, np.uint8)
    alpha[:8], alpha[8] = 0, 128
    image = np.dstack([photo, alpha])
    for form in (image, Image.fromarray(image), encoded(image), Image.fromarray(image).convert("RGBa")):
        pixels = to_pixels(form)
        assert (pixels[:8] == 255).all()
        np.testing.assert_array_equal(pixels[9:], photo[9:])
        np.testing.assert_allclose(pixels[8].astype(int), photo[8] * 0.5 + 127.5, atol=2)
    gray = Image.fromarray(photo[..., 0])
    gray.info["transparency"] = 0
    assert (to_pixels(gray)[:, 0] == 255).all()
    assert to_mask(np.dstack([np.full((16, 24, 3), 255, np.uint8), alpha]))[0, 0] == 0


def test_masks_become_grayscale(photo: np.ndarray) -> None:
    np.testing.assert_array_equal(to_mask(photo), np.asarray(Image.fromarray(photo).convert("L")))


# ----------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP", "PPM"])
def test_reads_every_format(photo: np.ndarray, tmp_path: Path, kind: str) -> None:
    raw = encoded(photo, kind, **({"lossless": True} if kind == "WEBP" else {}))
    path = tmp_path / f"a.{kind.lower()}"
    path.write_bytes(raw)
    for form in (path, str(path), raw, bytearray(raw), memoryview(raw), io.BytesIO(raw)):
        np.testing.assert_array_equal(to_pixels(form), photo)
    with open(path, "rb") as file:
        np.testing.assert_array_equal(to_pixels(file), photo)


def test_reads_file_objects_from_their_position(photo: np.ndarray) -> None:
    file = io.BytesIO(b"some header" + encoded(photo))
    file.seek(len(b"some header"))
    np.testing.assert_array_equal(to_pixels(file), photo)
    assert not file.closed


def test_applies_exif_orientation(photo: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    raw = encoded(photo, "JPEG", exif=exif, quality=95)
    pixels = to_pixels(raw)
    assert pixels.shape == (24, 16, 3)
    np.testing.assert_array_equal(to_pixels(Image.open(io.BytesIO(raw))), pixels)
    np.testing.assert_allclose(pixels.astype(int), np.rot90(photo, -1), atol=60)


def test_reads_png_of_16_bits(photo: np.ndarray) -> None:
    wide = Image.fromarray(photo[..., 0].astype(np.uint16) * 257)
    out = io.BytesIO()
    wide.save(out, "PNG")
    np.testing.assert_array_equal(to_pixels(out.getvalue())[..., 1], photo[..., 0])


def test_rejects_damaged_files(photo: np.ndarray, tmp_path: Path) -> None:
    raw = encoded(photo)
    for bad in (b"", b"nonsense", raw[:20], raw[: len(raw) // 2], raw[:60] + b"\0" * 40 + raw[100:]):
        with pytest.raises(MediaError, match="cannot read .* as an image"):
            to_pixels(bad)
    with pytest.raises(FileNotFoundError):
        to_pixels(tmp_path / "none.png")
    (tmp_path / "a.png").write_text("nonsense")
    with pytest.raises(MediaError, match="a.png"):
        to_pixels(tmp_path / "a.png")


def test_rejects_damaged_second_image(photo: np.ndarray) -> None:
    """Pillow counts the images of a TIFF file by reading their headers."""
    file = io.BytesIO()
    image = Image.fromarray(photo[:4, :4])
    image.save(file, "TIFF", save_all=True, append_images=[image])
    raw = bytearray(file.getvalue())
    first = int.from_bytes(raw[4:8], "little")
    end = first + 2 + 12 * int.from_bytes(raw[first : first + 2], "little")
    second = int.from_bytes(raw[end : end + 4], "little")
    raw[second + 2 : second + 4] = b"\xff\xff"  # instead of the tag of its width
    with pytest.raises(MediaError, match="cannot read image as an image"):
        to_pixels(bytes(raw))


# ----------------------------------------------------------------------------- limits and errors


def png_header(width: int, height: int) -> bytes:
    """Return a PNG file whose header has this size and which has no pixels."""
    raw = bytearray(encoded(np.zeros((1, 1, 3), np.uint8)))
    raw[16:24] = struct.pack(">II", width, height)
    raw[29:33] = struct.pack(">I", zlib.crc32(raw[12:29]))
    return bytes(raw)


def test_rejects_large_images_by_their_header(tmp_path: Path) -> None:
    bomb = png_header(40_000, 40_000)
    (tmp_path / "bomb.png").write_bytes(bomb)
    for form in (bomb, tmp_path / "bomb.png", io.BytesIO(bomb), b"P6\n40000 40000\n255\n" + bytes(100)):
        with pytest.raises(ValueError, match=r"1,600,000,000 pixels, more than 50,000,000 \(max_pixels\)"):
            to_pixels(form)
    with pytest.raises(ValueError, match="1600000000 pixels"):  # Pillow's own limit stays
        to_pixels(bomb, max_pixels=None)
    with pytest.raises(ValueError, match=r"photo has 8000x7000 = 56,000,000 pixels, more than 50,000,000"):
        to_pixels(png_header(8000, 7000), "photo")
    with pytest.raises(ValueError, match="pixels, more than 50,000,000"), pytest.warns(Image.DecompressionBombWarning):
        to_pixels(png_header(10_000, 10_000))


def test_limits_apply_to_every_form(photo: np.ndarray) -> None:
    raw = encoded(photo)
    for form in (photo, Image.fromarray(photo), raw, Image.open(io.BytesIO(raw))):
        for call in (to_pixels, to_mask, to_pixels_list):
            with pytest.raises(ValueError, match="24x16 = 384 pixels, more than 383"):
                call(form, max_pixels=383)
            call(form, max_pixels=384)
    with pytest.raises(ValueError, match="24x16 = 384 pixels, more than 383"):
        to_pixels(io.BytesIO(raw), max_pixels=383)
    for form in (raw, bytearray(raw), io.BytesIO(raw)):
        with pytest.raises(ValueError, match=r"more than 20 bytes \(max_bytes\)"):
            to_pixels(form, max_bytes=20)
    with pytest.raises(ValueError, match="more than"):
        to_pixels(io.BytesIO(raw), max_bytes=len(raw) - 1)
    np.testing.assert_array_equal(to_pixels(io.BytesIO(raw), max_bytes=len(raw)), photo)


def test_reads_endless_files_up_to_the_limit() -> None:
    class Endless(io.RawIOBase):
        n = 0

        def read(self, size: int = -1) -> bytes:
            assert size > 0
            self.n += size
            return bytes(size)

    file = Endless()
    with pytest.raises(ValueError, match="more than 3,000,000 bytes"):
        to_pixels(file, max_bytes=3_000_000)
    assert file.n == 3_000_001


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_rejects_files_with_several_images(photo: np.ndarray, kind: str) -> None:
    frames = [Image.fromarray(np.roll(photo, i, axis=1)) for i in range(3)]
    options = {"lossless": True} if kind == "WEBP" else {}
    out = io.BytesIO()
    frames[0].save(out, kind, save_all=True, append_images=frames[1:], **options)
    with pytest.raises(MediaError, match="has 3 images, expected one"):
        to_pixels(out.getvalue())
    animation = Image.open(io.BytesIO(out.getvalue()))
    if kind != "GIF":  # which has a palette
        animation.seek(1)
        np.testing.assert_array_equal(to_pixels(animation), np.roll(photo, 1, axis=1))
    first = io.BytesIO()
    frames[0].save(first, kind, save_all=True, **options)
    assert to_pixels(first.getvalue()).shape == photo.shape


def test_reads_camera_files_with_previews(photo: np.ndarray) -> None:
    out = io.BytesIO()
    image = Image.fromarray(photo)
    image.save(out, "MPO", save_all=True, append_images=[image.resize((6, 4))], quality=95)
    assert Image.open(io.BytesIO(out.getvalue())).format == "MPO"
    np.testing.assert_allclose(to_pixels(out.getvalue()).astype(int), photo, atol=60)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_reads_cmyk_files(kind: str) -> None:
    colours = np.zeros((16, 64, 3), np.uint8)
    for i, colour in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255), (250, 240, 10)]):
        colours[:, 16 * i : 16 * i + 16] = colour
    out = io.BytesIO()
    Image.fromarray(colours).convert("CMYK").save(out, kind, **({"quality": 100} if kind == "JPEG" else {}))
    assert Image.open(io.BytesIO(out.getvalue())).mode == "CMYK"
    np.testing.assert_allclose(to_pixels(out.getvalue()).astype(int), colours, atol=6)


def test_rejects_formats_that_run_programs(photo: np.ndarray) -> None:
    raw = encoded(photo, "EPS")
    assert Image.open(io.BytesIO(raw)).format == "EPS"
    with pytest.raises(MediaError, match="as an image: it is a PostScript file"):
        to_pixels(raw)


def test_rejects_invalid_paths(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="photo is .*, a directory, expected an image file"):
        to_pixels(tmp_path, "photo")
    with pytest.raises(ValueError, match="'/dev/zero', a device"):
        to_pixels("/dev/zero")
    with pytest.raises(ValueError, match="null character"):
        to_pixels("a\0.png")
    with pytest.raises(FileNotFoundError, match="empty path"):
        to_pixels("")
    with open(__file__) as file, pytest.raises(TypeError, match="gave str, expected bytes"):
        to_pixels(file)


def test_rejects_images_without_pixels() -> None:
    for size in ((0, 0), (0, 5), (5, 0)):
        for mode in ("RGB", "L", "P", "RGBA", "I;16"):
            with pytest.raises(ValueError, match=f"{size[0]}x{size[1]} pixels, expected at least one"):
                to_pixels(Image.new(mode, size))
    with pytest.raises(MediaError, match="cannot read .* as an image"):
        to_pixels(png_header(0, 0))


def test_rejects_truncated_pillow_images(photo: np.ndarray) -> None:
    raw = encoded(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    with pytest.raises(MediaError, match="cannot read .* as an image"):
        to_pixels(Image.open(io.BytesIO(raw[: len(raw) // 2])))


# ------------------------------------------------------------------------------------- lists and output


def test_returns_a_list(photo: np.ndarray) -> None:
    forms = (photo, [photo], (photo,), np.stack([photo, photo]), iter([photo, encoded(photo)]), Image.fromarray(photo))
    for images, count in zip(forms, (1, 1, 1, 2, 2, 1), strict=True):
        found = to_pixels_list(images)
        assert len(found) == count
        for pixels in found:
            np.testing.assert_array_equal(pixels, photo)
    with pytest.raises(TypeError, match=r"ref_images\[1\]"):
        to_pixels_list([photo, 3], "ref_images")


def test_returns_pillow_images(photo: np.ndarray) -> None:
    image = to_pil(photo)
    assert image.mode == "RGB" and image.size == (24, 16)
    np.testing.assert_array_equal(np.asarray(image), photo)
    assert to_pil(photo[..., 0]).mode == "L"


def test_fits_images_to_a_size(photo: np.ndarray) -> None:
    assert fitted(photo, 24, 16) is photo
    assert fitted(photo, 64, 32).shape == (32, 64, 3)
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 255
    np.testing.assert_array_equal(fitted(wide, 10, 10), np.full((10, 10, 3), 255, np.uint8))  # the centre
    mask = np.zeros((16, 24), np.uint8)
    mask[:8] = 255
    assert set(np.unique(fitted(mask, 48, 31))) == {0, 255}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint16])
@pytest.mark.parametrize("order", ["rows", "planes", "strided"])
def test_converts_large_arrays(dtype: type, order: str) -> None:
    """The arrays are larger than a band of the conversion, and not a multiple of it."""
    pixels = np.random.default_rng(1).integers(0, 256, (211, 307, 3), np.uint8)
    numbers = (pixels.astype(np.uint16) * 257 if dtype is np.uint16 else pixels / 255).astype(dtype)
    form = {"rows": numbers, "planes": np.ascontiguousarray(numbers.transpose(2, 0, 1)),
            "strided": np.repeat(numbers, 2, axis=1)[:, ::2]}[order]  # fmt: skip
    np.testing.assert_array_equal(to_pixels(form), pixels)
    last = numbers.copy()
    last[-1, -1, -1] = 3.5
    if dtype is not np.uint16:
        with pytest.raises(ValueError, match=r"has values from 0\.0 to 3\.5, expected 0 to 1"):
            to_pixels(last)
