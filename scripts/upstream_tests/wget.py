"""In the place of a package that upstream's tests import: nothing is downloaded here."""

from __future__ import annotations


def download(url: str, out: str | None = None) -> None:
    """Refuse.

    Raises
    ------
    OSError
    """
    raise OSError(f"{url} is not downloaded")
