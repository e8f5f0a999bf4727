"""Bitmap: images and audio from arrays and files, lazy content, invalid arguments."""

from __future__ import annotations

import io
import struct
import threading
import wave
from pathlib import Path

import numpy as np
import pytest
from llava.support import pixels, png, shape
from PIL import Image

from cyllama.errors import ClosedError, InUseError, MediaError, UnsupportedError
from cyllama.llava import Bitmap, MtmdContext


def wav(n: int = 8000, announced: int | None = None) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((1, 2, 8000, n, "NONE", ""))
        file.writeframes(bytes(2 * n))
    data = bytearray(out.getvalue())
    if announced is not None:
        data[40:44] = struct.pack("<I", announced)
    return bytes(data)


def test_pixels_round_trip() -> None:
    given = pixels("square", "blue", size=60)
    with Bitmap.from_pixels(given, "name") as bitmap:
        assert (bitmap.nx, bitmap.ny, bitmap.n_bytes, bitmap.is_audio) == (60, 60, 60 * 60 * 3, False)
        assert bitmap.id == "name" and not bitmap.mergeable and not bitmap.is_lazy
        np.testing.assert_array_equal(bitmap.data, given)
        assert repr(bitmap) == "<Bitmap 60x60>"
        bitmap.id = "ünï"
        assert bitmap.id == "ünï"
        bitmap.id = None
        assert bitmap.id is None
        bitmap.set_mergeable(True)
        assert bitmap.mergeable
    with pytest.raises(ClosedError):
        bitmap.data  # noqa: B018
    assert repr(bitmap) == "<Bitmap (closed)>"


def test_accepts_strided_arrays() -> None:
    given = np.random.default_rng(0).integers(0, 256, (50, 40, 3), np.uint8)
    for array in (given[::-1], given[:, ::-2], given[..., ::-1], np.asfortranarray(given)):
        np.testing.assert_array_equal(Bitmap.from_pixels(array).data, array)


def test_samples_round_trip() -> None:
    given = np.sin(np.arange(1000, dtype=np.float32))
    bitmap = Bitmap.from_audio(given[::2], "tone")
    assert (bitmap.nx, bitmap.ny, bitmap.is_audio, bitmap.id) == (500, 1, True, "tone")
    np.testing.assert_array_equal(bitmap.data, given[::2])
    assert repr(bitmap) == "<Bitmap 500 samples>"


def test_placeholders_have_a_size_and_no_data() -> None:
    bitmap = Bitmap.placeholder(30, 20)
    assert (bitmap.nx, bitmap.ny, bitmap.n_bytes, bitmap.data) == (30, 20, 0, None)
    assert "placeholder" in repr(bitmap)
    assert Bitmap.placeholder(n_samples=160).is_audio


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: Bitmap(), TypeError, "cannot be called"),
        (lambda: Bitmap.from_pixels(shape()), TypeError, "pixels is Image"),
        (lambda: Bitmap.from_pixels(np.zeros((4, 4), np.uint8)), ValueError, r"\(4, 4\)"),
        (lambda: Bitmap.from_pixels(np.zeros((4, 4, 4), np.uint8)), ValueError, r"\(4, 4, 4\)"),
        (lambda: Bitmap.from_pixels(np.zeros((4, 4, 3), np.float32)), ValueError, "float32"),
        (lambda: Bitmap.from_pixels(np.zeros((0, 4, 3), np.uint8)), ValueError, "4x0 pixels"),
        (lambda: Bitmap.from_pixels(np.broadcast_to(np.uint8(0), (40000, 40000, 3))), ValueError, "40000x40000"),
        (lambda: Bitmap.from_pixels(pixels(), id="a\0b"), ValueError, "null character"),
        (lambda: Bitmap.from_pixels(pixels(), id=7), TypeError, "id is 7"),
        (lambda: Bitmap.from_audio(np.zeros(1, np.float32)), ValueError, "number of samples is 1"),
        (lambda: Bitmap.from_audio(np.zeros((2, 9), np.float32)), ValueError, r"\(2, 9\)"),
        (lambda: Bitmap.from_audio(np.zeros(9, np.int16)), ValueError, "int16"),
        (lambda: Bitmap.from_audio(np.full(9, np.nan, np.float32)), ValueError, "not finite"),
        (lambda: Bitmap.from_audio([0.0, 0.1]), TypeError, "samples is list"),
        (lambda: Bitmap.placeholder(), ValueError, "width is 0"),
        (lambda: Bitmap.placeholder(2**40, 1), ValueError, "width is"),
        (lambda: Bitmap.placeholder(1, 1, 100), ValueError, "n_samples"),
    ],
)
def test_rejects_invalid_arguments(make: object, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        make()


# ---------------------------------------------------------------------------------- encoded files


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "TIFF", "JPEG"])
def test_reads_image_files(mtmd: MtmdContext, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"image.{kind.lower()}"
    shape("square", "green").save(path)
    if kind == "TIFF":  # the engine does not read it
        with pytest.raises(MediaError, match="not an image"):
            Bitmap.from_file(mtmd, path)
        return
    for bitmap in (Bitmap.from_file(mtmd, path), Bitmap.from_bytes(mtmd, path.read_bytes())):
        assert len(bitmap.id) == 64  # the hash of the content
        difference = np.abs(bitmap.data.astype(int) - pixels("square", "green"))
        assert difference.mean() <= (3 if kind == "JPEG" else 0)
    placeholder = Bitmap.from_file(mtmd, path, placeholder=True)
    assert (placeholder.nx, placeholder.ny, placeholder.n_bytes, placeholder.id) == (224, 224, 0, None)


def test_rejects_damaged_and_other_files(mtmd: MtmdContext, tmp_path: Path) -> None:
    out = io.BytesIO()
    shape().save(out, "PNG")
    whole = out.getvalue()
    with pytest.raises(ValueError, match="empty"):
        Bitmap.from_bytes(mtmd, b"")
    with pytest.raises(MediaError, match="image, audio or a video"):
        Bitmap.from_bytes(mtmd, b"this is a text and nothing else")
    with pytest.raises(MediaError):
        Bitmap.from_bytes(mtmd, whole[: len(whole) // 2])
    with pytest.raises(FileNotFoundError):
        Bitmap.from_file(mtmd, tmp_path / "none.png")
    with pytest.raises(IsADirectoryError):
        Bitmap.from_file(mtmd, tmp_path)
    with pytest.raises(TypeError):
        Bitmap.from_bytes(mtmd, "text")
    with pytest.raises(TypeError, match="MtmdContext"):
        Bitmap.from_bytes("mtmd", whole)


def test_rejects_large_images_by_their_header(mtmd: MtmdContext) -> None:
    with pytest.raises(ValueError, match="1600000000 pixels"):
        Bitmap.from_bytes(mtmd, png(40_000, 40_000))
    with pytest.raises(ValueError, match="8000x8000 pixels, more than 50,000,000"):
        Bitmap.from_bytes(mtmd, png(8_000, 8_000))


def test_rejects_audio_without_audio_projector(mtmd: MtmdContext, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="accepts only images"):
        Bitmap.from_bytes(mtmd, wav())
    path = tmp_path / "a.wav"
    path.write_bytes(wav())
    with pytest.raises(UnsupportedError, match=r"a\.wav is audio"):
        Bitmap.from_file(mtmd, path)


# ---------------------------------------------------------------------------------- lazy bitmaps


def test_lazy_bitmap_reads_parts_in_order(mtmd: MtmdContext) -> None:
    requested: list[int] = []
    parts = [pixels(), "between", Bitmap.from_pixels(pixels("square"), "second"), None]

    def give(i: int) -> object:
        requested.append(i)
        return parts[i]

    bitmap = Bitmap.lazy(mtmd, give, "film")
    assert bitmap.is_lazy and bitmap.id == "film" and repr(bitmap) == "<Bitmap lazy>"
    chunks = mtmd.tokenize("a <__media__> b", [bitmap])
    assert requested == [0, 1, 2, 3]
    assert [chunk.type.name for chunk in chunks] == ["TEXT", "IMAGE", "TEXT", "IMAGE", "TEXT"]
    assert [chunk.id for chunk in chunks][3] == "second"
    assert "between" in mtmd.model.vocab.detokenize(chunks[2].tokens, False, True)
    np.testing.assert_array_equal(
        mtmd.encode(chunks[1]), mtmd.encode(mtmd.tokenize("<__media__>", [Bitmap.from_pixels(pixels())])[1])
    )
    assert len(mtmd.tokenize("a <__media__> b", [Bitmap.lazy(mtmd, lambda i: None)])) == 1


@pytest.mark.parametrize(
    ("give", "kind", "message"),
    [
        (lambda i: 1 / 0, ZeroDivisionError, "division"),
        (lambda i: "a\0b", ValueError, "null character"),
        (lambda i: 7, TypeError, "pixels is int"),
        (lambda i: np.zeros((2, 2), np.uint8), ValueError, "shape"),
        (lambda i: Bitmap.from_audio(np.zeros(99, np.float32)), UnsupportedError, "only images"),
        (lambda i: (_ for _ in ()).throw(KeyboardInterrupt("now")), KeyboardInterrupt, "now"),
    ],
)
def test_errors_of_lazy_bitmaps_propagate(
    mtmd: MtmdContext, give: object, kind: type[BaseException], message: str
) -> None:
    bitmap = Bitmap.lazy(mtmd, give)
    for _ in range(2):  # it can be used again
        with pytest.raises(kind, match=message):
            mtmd.tokenize("<__media__>", [bitmap])


def test_rejects_nested_lazy_bitmaps(mtmd: MtmdContext) -> None:
    inner = Bitmap.lazy(mtmd, lambda i: None)
    with pytest.raises(TypeError, match="another lazy"):
        mtmd.tokenize("<__media__>", [Bitmap.lazy(mtmd, lambda i: inner)])
    with pytest.raises(TypeError, match="give is 7"):
        Bitmap.lazy(mtmd, 7)


def test_bitmaps_cannot_be_closed_while_tokenized(mtmd: MtmdContext) -> None:
    errors: list[Exception] = []
    plain = Bitmap.from_pixels(pixels())

    def give(i: int) -> object:
        for use in (bitmap.close, plain.close, lambda: mtmd.tokenize("<__media__>", [bitmap])):
            try:
                use()
            except InUseError as error:
                errors.append(error)
        return pixels() if i == 0 else None

    bitmap = Bitmap.lazy(mtmd, give)
    mtmd.tokenize("<__media__> <__media__>", [plain, bitmap])
    assert len(errors) == 6
    plain.close()
    bitmap.close()


def test_threads_share_a_bitmap(mtmd: MtmdContext) -> None:
    bitmap = Bitmap.from_pixels(pixels(size=500), "shared")
    counts: list[int] = []

    def work() -> None:
        for _ in range(5):
            counts.append(mtmd.tokenize("a <__media__> b", [bitmap]).n_tokens)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(counts) == 20 and len(set(counts)) == 1


def test_reads_animated_and_cmyk_files(mtmd: MtmdContext) -> None:
    """The engine reads the first frame of an animation, and CMYK JPEGs."""
    out = io.BytesIO()
    shape().save(out, "GIF", save_all=True, append_images=[shape("square")])
    assert Bitmap.from_bytes(mtmd, out.getvalue()).nx == 224
    out = io.BytesIO()
    Image.new("CMYK", (30, 20), (0, 255, 255, 0)).save(out, "JPEG")
    data = Bitmap.from_bytes(mtmd, out.getvalue()).data
    assert data.shape == (20, 30, 3)
