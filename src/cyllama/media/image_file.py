"""Image files: check the size in the header, open, reduce while decoding, and apply the EXIF orientation."""

from __future__ import annotations

import contextlib
import io
import re
import threading
import warnings
from collections.abc import Iterator
from typing import IO

from PIL import Image, UnidentifiedImageError

from cyllama.errors import MediaError
from cyllama.media._file_kinds import HEAD_BYTES, HEIC, file_kind, is_truncated

__all__ = ["MAX_PIXELS", "check_header", "check_image_file", "check_size", "load_image", "open_image", "prepared"]

MAX_PIXELS = 50_000_000
# Formats whose first image is complete; the others in the file are previews or layers.
FIRST_IS_WHOLE = ("MPO", "PSD")
# Formats that Pillow reads with another program, and containers whose images it decodes without looking at their size.
REJECTED_FORMATS = frozenset(("EPS", "ICNS", "IPTC", "FPX", "MIC"))
ICON = (b"\0\0\1\0", b"\0\0\2\0")  # ICO and CUR files begin with it
ICON_ENTRY = 16  # bytes
PNG_MARK = b"\x89PNG\r\n\x1a\n"
VP8_SIDE = 0x3FFF  # 14 bits
ORIENTATION = 0x0112  # of EXIF; 1 is upright
TRANSPOSED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
EXPECTED = "expected an image file, such as PNG, JPEG or WebP"
NEARLY = 0.95
REDUCING_GAP = 2.0  # of Pillow: the image is first averaged to at least this many times the new size
# A large image needs 2 to 16 bytes for each of its pixels while it is decoded, so one is decoded at a time.
_decoding = threading.Lock()


def check_size(size: tuple[int, int], name: str, max_pixels: int | None) -> None:
    """Check the size of an image.

    Raises
    ------
    ValueError
    """
    width, height = size
    if max_pixels is not None and width * height > max_pixels:
        raise ValueError(
            f"{name} has {width}x{height} = {width * height:,} pixels, more than {max_pixels:,} (max_pixels)"
        )


def open_image(file: IO[bytes]) -> Image.Image:
    """Open an encoded image, which Pillow decodes later; see `check_header` for the exceptions.

    Raises
    ------
    OSError, SyntaxError, ...
        Pillow's readers raise many types for damaged files, and UnidentifiedImageError for unsupported formats. Formats
        that run another program (EPS) are not supported.
    """
    Image.init()
    return Image.open(file, formats=[kind for kind in Image.ID if kind not in REJECTED_FORMATS])


def check_header(file: IO[bytes], name: str, max_pixels: int | None = MAX_PIXELS) -> None:
    """Check the sizes of images for which Pillow allocates or decodes pixels while it opens a file: ICO, CUR and WebP.

    Parameters
    ----------
    file : binary file
        Of any format; it is left at its begin.
    name : str
        The name of the value in messages.
    max_pixels : int or None
        Limit of width times height.

    Raises
    ------
    ValueError
        An image is too large, by its own header.
    """
    head = file.read(30)
    if head[:4] in ICON:
        _check_icon(file, int.from_bytes(head[4:6], "little"), name, max_pixels)
    elif head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        check_size(_webp_size(head), name, max_pixels)
    file.seek(0)


def _check_icon(file: IO[bytes], count: int, name: str, max_pixels: int | None) -> None:
    file.seek(6)
    entries = file.read(ICON_ENTRY * count)
    for at in range(0, len(entries) - ICON_ENTRY + 1, ICON_ENTRY):
        file.seek(int.from_bytes(entries[at + 12 : at + 16], "little"))
        image = file.read(24)
        if image.startswith(PNG_MARK):
            size = int.from_bytes(image[16:20], "big"), int.from_bytes(image[20:24], "big")
        else:
            size = int.from_bytes(image[4:8], "little"), int.from_bytes(image[8:12], "little") // 2
        check_size(size, name, max_pixels)


def _webp_size(head: bytes) -> tuple[int, int]:
    """Return the size in the first chunk of a WebP file; 0x0 if it has none."""
    kind = head[12:16]
    if kind == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & VP8_SIDE) + 1, (bits >> 14 & VP8_SIDE) + 1
    if kind == b"VP8 ":
        return int.from_bytes(head[26:28], "little") & VP8_SIDE, int.from_bytes(head[28:30], "little") & VP8_SIDE
    return 0, 0


def check_image_file(data: bytes, name: str, max_pixels: int | None = MAX_PIXELS) -> int:
    """Check the header of an encoded image: its kind and its size. Nothing is decoded.

    Returns
    -------
    int
        Number of pixels.

    Raises
    ------
    ValueError
        The image is too large.
    MediaError
        The data are not an image that Pillow reads.
    """
    file = io.BytesIO(data)
    check_header(file, name, max_pixels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with _reading(name, max_pixels, file), open_image(file) as image:
            size = image.size
    check_size(size, name, max_pixels)
    return size[0] * size[1]


def load_image(file: io.BytesIO, name: str, max_pixels: int | None, reduce_to: int | None) -> Image.Image:
    """Decode an image file that has one image.

    Parameters
    ----------
    file : io.BytesIO
    name : str
        The name of the value in messages.
    max_pixels, reduce_to : int or None
        As of `cyllama.media.image.to_pixels`.

    Raises
    ------
    ValueError, MediaError
    """
    check_header(file, name, max_pixels)
    with _reading(name, max_pixels, file):
        image = open_image(file)
    check_size(image.size, name, max_pixels)
    with _reading(name, max_pixels, file):
        several = getattr(image, "is_animated", False) and image.format not in FIRST_IS_WHOLE
        count = getattr(image, "n_frames", "several") if several else 1  # reads the other images
    if several:
        raise MediaError(f"{name} has {count} images, expected one; open it with Pillow and seek() the image")
    return prepared(image, name, max_pixels, reduce_to, file)


def prepared(
    image: Image.Image, name: str, max_pixels: int | None, reduce_to: int | None, file: io.BytesIO | None = None
) -> Image.Image:
    """Decode an image if necessary, reduce it, and apply its EXIF orientation; parameters as of `load_image`."""
    is_large = reduce_to is not None and image.width * image.height > reduce_to
    with _decoding if is_large else contextlib.nullcontext(), _reading(name, max_pixels, file):
        size = _reduced_size(image.size, reduce_to) if is_large and reduce_to is not None else image.size
        if is_large and file is not None:
            # a JPEG is decoded to a half, a fourth or an eighth of its sides, which are nearly those of `size` or more
            image.draft(None, (max(1, int(size[0] * NEARLY)), max(1, int(size[1] * NEARLY))))
        image.load()
        method = TRANSPOSED.get(image.getexif().get(ORIENTATION, 1))
        if is_large:
            image = _resizable(image).resize(size, Image.Resampling.HAMMING, reducing_gap=REDUCING_GAP)
        return image if method is None else image.transpose(method)


def _reduced_size(size: tuple[int, int], most: int) -> tuple[int, int]:
    """Return the largest size with the same proportions and at most a number of pixels."""
    scale = (most / (size[0] * size[1])) ** 0.5
    width, height = (max(1, int(side * scale)) for side in size)
    return min(width, most // height), min(height, most)


def _resizable(image: Image.Image) -> Image.Image:
    """Return an image in a mode whose pixels can be averaged."""
    if image.mode in ("RGB", "L", "1", "P", "PA") and image.has_transparency_data:
        return image.convert("RGBA")
    target = {"1": "L", "P": "RGB", "PA": "RGB"}.get(image.mode) or ("I" if image.mode.startswith("I;16") else "")
    return image.convert(target) if target else image


@contextlib.contextmanager
def _reading(name: str, max_pixels: int | None, file: io.BytesIO | None) -> Iterator[None]:
    """Raise MediaError for every error of a format's reader, which can have any type."""
    try:
        yield
    except MemoryError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        found = re.search(r"\((\d+) pixels\)", str(error))
        if max_pixels is None or found is None:
            raise ValueError(f"{name} is too large: {error}") from None
        raise ValueError(f"{name} has {int(found[1]):,} pixels, more than {max_pixels:,} (max_pixels)") from None
    except Exception as error:
        raise MediaError(f"cannot read {name} as an image: {_reason(error, file)}") from error


def _reason(error: Exception, file: io.BytesIO | None) -> str:
    """Return why an image cannot be read: what the file is, or Pillow's words."""
    text = str(error).split("<_io")[0].strip().rstrip(",") or type(error).__name__
    if file is None:
        return text
    data = file.getbuffer()
    kind = file_kind(bytes(data[:HEAD_BYTES]))
    if kind is not None and is_truncated(data):
        return f"it is {kind} whose end is missing (truncated)"
    if not isinstance(error, UnidentifiedImageError) or kind is None:
        return text
    if kind == HEIC:
        return f"it is {kind}, which Pillow reads with pillow-heif (pip install pillow-heif; register_heif_opener())"
    return f"it is {kind}, {EXPECTED}"
