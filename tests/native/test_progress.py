"""Progress lines and HTML for notebooks."""

from __future__ import annotations

import base64
import io
import re

import pytest
from PIL import Image

from cyllama import _html, _progress
from cyllama._progress import ByteProgress, StepProgress


def screen(text: str) -> str:
    """Return the last line as a terminal shows it after carriage returns."""
    shown = ""
    for part in text.split("\r"):
        shown = part + shown[len(part) :]
    return shown


def test_step_progress_replaces_and_erases_the_line() -> None:
    out = io.StringIO()
    line = StepProgress(out)
    line(1, 10, 1234.5)
    assert screen(out.getvalue()).startswith("##......................") and "1/10  1234.50 s/step" in out.getvalue()
    line(10, 10, 0.0)
    assert screen(out.getvalue()).rstrip() == "#" * 24 + " 10/10"  # the longer line before is gone
    line.close()
    assert screen(out.getvalue()).strip() == ""
    line.close()
    assert out.getvalue().count("10/10") == 1


def test_byte_progress_limits_its_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(_progress.time, "monotonic", lambda: now)
    out = io.StringIO()
    line = ByteProgress(out, "x.whl")
    line(1_000_000, 4_000_000)
    line(2_000_000, 4_000_000)
    now += 0.2
    line(3_000_000, 4_000_000)
    line(4_000_000, 4_000_000)
    line.close(keep=True)
    shown = re.findall(r"(\d+)% of 4\.0 MB", out.getvalue())
    assert shown == ["25", "75", "100"] and out.getvalue().endswith("\n")


def test_byte_progress_of_an_unknown_total() -> None:
    out = io.StringIO()
    ByteProgress(out, "x")(2_500_000, 0)
    assert screen(out.getvalue()) == "x: 2.5 MB"


def test_image_grid_is_bounded_and_escaped() -> None:
    images = [Image.new("RGB", (1000, 500), "red")] * 20
    shown = _html.image_grid(images, (f"<{i}>" for i in range(20)))
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', shown)
    assert len(found) == 16 and "4 more" in shown and "&lt;15&gt;" in shown and "<15>" not in shown
    with Image.open(io.BytesIO(base64.b64decode(found[0]))) as image:
        assert image.size == (384, 192) and image.getpixel((5, 5)) == (255, 0, 0)
    assert images[0].size == (1000, 500)
    assert _html.table({"a&b": "<c>", "none": None}).count("<tr>") == 1
