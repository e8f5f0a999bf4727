"""Short-lived links to generated images."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from typing import NamedTuple

__all__ = ["ImageLinks", "LinkedImage"]

MAX_BYTES = 64 << 20
TOKEN_BYTES = 32


class LinkedImage(NamedTuple):
    """An image with a link.

    Attributes
    ----------
    data : bytes
        The file.
    content_type : str
    end : float
        When the link ends, in seconds of `time.monotonic`.
    """

    data: bytes
    content_type: str
    end: float


class ImageLinks:
    """Images in memory that can be fetched for some time by a name that cannot be guessed.

    Parameters
    ----------
    seconds : float
        Time for which an image is kept; 0: no image is.
    max_bytes : int
        Size of all images; the oldest are removed first.
    """

    def __init__(self, seconds: float, max_bytes: int = MAX_BYTES) -> None:
        self.seconds, self._max_bytes = seconds, max_bytes
        self._lock = threading.Lock()
        self._images: OrderedDict[str, LinkedImage] = OrderedDict()
        self._size = 0

    def add(self, data: bytes, content_type: str) -> str:
        """Keep an image and return its name."""
        name = secrets.token_urlsafe(TOKEN_BYTES)
        with self._lock:
            self._images[name] = LinkedImage(data, content_type, time.monotonic() + self.seconds)
            self._size += len(data)
            self._remove()
        return name

    def find(self, name: str) -> LinkedImage | None:
        """Return an image; None if it does not exist or its time is over."""
        with self._lock:
            self._remove()
            return self._images.get(name)

    def _remove(self) -> None:
        now = time.monotonic()
        while self._images and (self._size > self._max_bytes or next(iter(self._images.values())).end <= now):
            _, image = self._images.popitem(last=False)
            self._size -= len(image.data)
