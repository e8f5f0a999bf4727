"""Base64 and data URLs in every form that browsers and tools produce."""

from __future__ import annotations

import base64
import tracemalloc
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyllama.media.encoded import decode_base64
from cyllama.media.image import to_pixels
from cyllama.media.paths import checked_path

DATA = bytes(range(256)) + b"\xff\xfe\xfb" * 40 + b"!"  # every character of both alphabets, and padding
STANDARD = base64.b64encode(DATA).decode()
URL_SAFE = base64.urlsafe_b64encode(DATA).decode()
FORMS = {
    "plain": STANDARD,
    "lines as the program base64 prints them": base64.encodebytes(DATA).decode(),
    "lines of Windows": base64.encodebytes(DATA).decode().replace("\n", "\r\n"),
    "a line break at the end": STANDARD + "\n",
    "spaces around": f"  {STANDARD}\t\n",
    "without padding": STANDARD.rstrip("="),
    "alphabet for URLs": URL_SAFE,
    "alphabet for URLs without padding": URL_SAFE.rstrip("="),
    "percent-encoded": quote(STANDARD, safe=""),
    "data URL": f"data:image/png;base64,{STANDARD}",
    "data URL without a type": f"data:;base64,{STANDARD}",
    "data URL with a charset": f"data:image/png;charset=utf-8;base64,{STANDARD}",
    "data URL with a name": f'data:image/png;name="a, b;c.png";base64,{STANDARD}',
    "data URL in capitals": f"DATA:IMAGE/PNG;BASE64,{STANDARD}",
    "data URL with spaces": f" data:image/png; base64, {STANDARD}\n",
    "data URL with lines": f"data:image/png;base64,\n{base64.encodebytes(DATA).decode()}",
    "data URL percent-encoded": f"data:image/png;base64,{quote(STANDARD, safe='')}",
    "data URL without padding": f"data:image/png;base64,{STANDARD.rstrip('=')}",
    "data URL with the alphabet for URLs": f"data:image/png;base64,{URL_SAFE}",
    "data URL without base64": f"data:image/png,{quote(DATA)}",
    "data URL without type and base64": f"data:,{quote(DATA)}",
}


@pytest.mark.parametrize("form", FORMS)
def test_decodes_every_form(form: str) -> None:
    assert decode_base64(FORMS[form], "image") == DATA


@given(st.binary(min_size=1, max_size=60))
def test_decodes_any_bytes(data: bytes) -> None:
    for text in (base64.b64encode(data).decode(), base64.urlsafe_b64encode(data).decode()):
        for form in (
            f"data:;base64,{text}",
            f"data:;base64,{text.rstrip('=')}",
            f"data:;base64,{quote(text, safe='')}",
        ):
            assert decode_base64(form, "image") == data
    assert decode_base64(f"data:,{quote(data)}", "image") == data


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("http://127.0.0.1:1/a.png", "URL"),
        ("HTTPS://example.org/a.png", "URL"),
        ("file:///etc/passwd", "URL"),
        ("/etc/passwd", "/etc/passwd"),
        ("<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        ("<!doctype html><p>x", "HTML"),
        ('{"url": "x"}', "JSON"),
        ("AAAAA", "AAAAA"),
        ("QUJD=QUJD", "QUJD=QUJD"),
        ("QU\u00e4JD", "QU"),
        ("%", "%"),
        ("data:image/png;base64", "base64"),
        ("data:image/png;base64,", "empty"),
        ("data:,", "empty"),
        ("", "empty"),
        ("====", "empty"),
    ],
)
def test_says_what_other_texts_are(text: str, word: str) -> None:
    with pytest.raises(ValueError, match=f"^here is .*{word}.*expected base64 or data:TYPE;base64,DATA"):
        decode_base64(text, "here")


@pytest.mark.parametrize("form", FORMS)
def test_limits_the_size_before_decoding(form: str) -> None:
    assert decode_base64(FORMS[form], "image", max_bytes=len(DATA)) == DATA
    with pytest.raises(ValueError, match=r"more than 100 bytes \(max_bytes\)"):
        decode_base64(FORMS[form], "image", max_bytes=100)


def test_rejects_large_text_without_decoding_it() -> None:
    text = "data:;base64," + "A" * (1 << 25)
    tracemalloc.start()
    with pytest.raises(ValueError, match="max_bytes"):
        decode_base64(text, "image", max_bytes=1000)
    assert tracemalloc.get_traced_memory()[1] < 2 * len(text)  # the part behind the comma
    tracemalloc.stop()


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/a.png", "https:/example.org/a.png", "ftp://host/a", "file:///a"])
def test_urls_are_no_paths(url: str) -> None:
    for call in (lambda: to_pixels(url, "photo"), lambda: checked_path(url, "photo", "image")):
        with pytest.raises(ValueError, match="photo is the URL .*not opened"):
            call()
