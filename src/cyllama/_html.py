"""HTML for notebooks: tables and inline images of a bounded size."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["data_url", "image_grid", "image_tag", "table"]

MAX_SIDE = 384  # pixels of an inline image
MAX_IMAGES = 16  # of a grid


def table(rows: Mapping[str, object]) -> str:
    """Return a table with a name and a value in each row; values of None are left out."""
    cells = (
        f'<tr><th style="text-align:left">{html.escape(name)}</th>'
        f'<td style="text-align:left">{html.escape(str(value))}</td></tr>'
        for name, value in rows.items()
        if value is not None
    )
    return f"<table>{''.join(cells)}</table>"


def data_url(data: bytes, media_type: str) -> str:
    """Return bytes as a ``data:`` URL."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def image_tag(image: Image.Image, title: str = "") -> str:
    """Return an ``<img>`` with the pixels inside, reduced to at most 384 pixels a side."""
    small = image.convert("RGB")
    small.thumbnail((MAX_SIDE, MAX_SIDE))
    out = io.BytesIO()
    small.save(out, "PNG")
    return f'<img src="{data_url(out.getvalue(), "image/png")}" title="{html.escape(title)}">'


def image_grid(images: Sequence[Image.Image], titles: Iterable[str]) -> str:
    """Return up to 16 images side by side, each with its title below, and the number of those left out."""
    figures = [
        f'<figure style="display:inline-block;margin:4px;text-align:center">{image_tag(image, title)}'
        f"<figcaption>{html.escape(title)}</figcaption></figure>"
        for image, title in zip(images[:MAX_IMAGES], titles, strict=False)
    ]
    rest = len(images) - MAX_IMAGES
    return "".join(figures) + (f"<p>{rest} more</p>" if rest > 0 else "")
