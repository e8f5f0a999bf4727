"""Pictures that requests carry: looked at before they are decoded."""

from __future__ import annotations

import io
import warnings

from PIL import Image

from cyllama.server.problems import problem

__all__ = ["check_picture"]


def check_picture(data: bytes, most: int, name: str) -> None:
    """Read the head of a picture: what claims more pixels than allowed is never unpacked.

    Raises
    ------
    HTTPException
        400 if it is no picture, 413 if it is too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                width, height = image.size
    except Image.DecompressionBombError:
        raise problem(413, f"{name} has far too many pixels", param=name) from None
    except Exception as error:  # the readers of the formats raise anything for damaged files
        raise problem(400, f"{name} is no picture that can be read", param=name) from error
    if width * height > most:
        raise problem(413, f"{name} has {width}x{height} pixels, at most {most:,} are allowed", param=name)
