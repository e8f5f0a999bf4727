"""Kinds of files by their first bytes, for messages about files that cannot be used."""

from __future__ import annotations

import re

__all__ = ["HEAD_BYTES", "file_kind", "is_truncated", "text_kind"]

HEAD_BYTES = 4096
"""Number of first bytes that `file_kind` reads."""
PNG, JPEG, GIF = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8"
# Beginnings of files.
MARKS = (
    (PNG, "a PNG image"),
    (JPEG, "a JPEG image"),
    (GIF, "a GIF image"),
    (b"II*\0", "a TIFF image"),
    (b"MM\0*", "a TIFF image"),
    (b"8BPS", "a Photoshop document"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL image"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
    (b"icns", "an ICNS icon"),
    (b"%PDF-", "a PDF document"),
    (b"%!PS", "a PostScript file (EPS)"),
    (b"\xc5\xd0\xd3\xc6", "a PostScript file (EPS)"),
    (b"PK\x03\x04", "a ZIP archive or an Office document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM video"),
    (b"FLV", "an FLV video"),
    (b"\0\0\1\xba", "an MPEG video"),
    (b"OggS", "an Ogg file"),
    (b"ID3", "an MP3 audio file"),
    (b"fLaC", "a FLAC audio file"),
    (b"GGUF", "a GGUF model"),
    (b"\x7fELF", "a program"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself"),
)
RIFF = {b"WEBP": "a WebP image", b"WAVE": "a WAV audio file", b"AVI ": "an AVI video"}
HEIC = "a HEIC image"
# Brands of ISO base media files; others are videos.
BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"), HEIC),
    **dict.fromkeys((b"avif", b"avis"), "an AVIF image"),
    **dict.fromkeys((b"M4A ", b"M4B "), "an M4A audio file"),
    b"qt  ": "a QuickTime video",
    b"crx ": "a raw photo of a camera",
}
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
URL = re.compile(rb"(https?|ftp|file)://", re.IGNORECASE)
# Base64 of the beginnings of PNG, JPEG, GIF, RIFF and PDF files.
ENCODED = (b"iVBORw0KGgo", b"/9j/", b"R0lGOD", b"UklGR", b"JVBERi")
CONTROLS = frozenset(range(32)) - frozenset(b"\t\n\r\f\x1b")


def file_kind(head: bytes) -> str | None:
    """Return what a file is, such as ``"a PDF document"``; None if the bytes do not show it.

    Parameters
    ----------
    head : bytes
        The first `HEAD_BYTES` bytes, or the whole file.
    """
    if not head:
        return "an empty file"
    if head[:4] == b"RIFF" and head[8:12] in RIFF:
        return RIFF[head[8:12]]
    if head[4:8] == b"ftyp":
        return BRANDS.get(head[8:12], "an MP4 video")
    if head[:2] == b"BM" and head[6:10] == bytes(4):
        return "a BMP image"
    return next((kind for mark, kind in MARKS if head.startswith(mark)), None) or text_kind(head)


def text_kind(head: bytes) -> str | None:
    """Return what a text is, such as ``"an SVG image"`` or ``"JSON"``; None if the bytes are no text."""
    text = head[:HEAD_BYTES].removeprefix(BYTE_ORDER_MARK).lstrip()
    lower = text.lower()
    if lower.startswith(b"<"):
        if b"<svg" in lower:
            return "an SVG image, which has no pixels"
        is_page = lower.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<script", b"<!--"))
        return "an HTML page" if is_page or b"<html" in lower else "an XML document"
    if re.match(rb'\{\s*["}]|\[\s*[\[{"\]\d-]', text):
        return "JSON"
    if lower.startswith(b"data:"):
        return "a data URL as text"
    if URL.match(text):
        return "a URL as text, not the file at that address"
    if text.startswith(ENCODED):
        return "base64 as text, not the decoded bytes"
    if not text or CONTROLS.intersection(text):
        return None
    try:
        text[:-3].decode("utf-8") if len(text) > HEAD_BYTES - 64 else text.decode("utf-8")
    except UnicodeDecodeError as error:
        return "text" if error.start > 0 and error.start >= len(text) - 6 else None
    return "text"


def is_truncated(data: bytes | memoryview) -> bool:
    """Return whether the end of an image file is missing, as far as its format shows this."""
    head, size = bytes(data[:16]), len(data)
    if head.startswith(PNG):
        return b"IEND" not in bytes(data[-(1 << 16) :])
    if head.startswith(JPEG):
        return b"\xff\xd9" not in bytes(data[-(1 << 16) :])
    if head.startswith(GIF):
        return not bytes(data[-64:]).rstrip(b"\0").endswith(b";")
    if head.startswith(b"RIFF"):
        return int.from_bytes(head[4:8], "little") + 8 > size
    if head.startswith(b"BM"):
        return int.from_bytes(head[2:6], "little") > size
    return False
