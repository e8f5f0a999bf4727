"""The exception of this package."""

from __future__ import annotations

__all__ = ["FetchError"]


class FetchError(Exception):
    """The sources cannot be fetched, verified or patched; the text is one sentence that names the cause."""
