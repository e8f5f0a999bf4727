"""What a fuzz target is, and which exceptions may come out of it."""

from __future__ import annotations

import contextlib
import linecache
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cyllama.errors import CyllamaError

__all__ = ["Target", "documented"]

PACKAGE = "cyllama"


@dataclass(frozen=True)
class Target:
    """Code that reads data of others.

    Attributes
    ----------
    prepare : callable
        Loads what the target needs, and returns the function that gets each input. An exception of that function is a
        finding.
    seeds : callable
        Returns the first inputs.
    max_length : int
        Bytes of an input.
    seconds : int
        Time limit of one input.
    """

    prepare: Callable[[], Callable[[bytes], object]]
    seeds: Callable[[], Iterable[bytes]]
    max_length: int = 1 << 12
    seconds: int = 20


@contextlib.contextmanager
def documented(*errors: type[Exception]) -> Iterator[None]:
    """Accept the exceptions that the package documents for a call.

    Python's own types also come from mistakes, such as an index out of range. So these must be raised by a statement of
    the package itself, or by its extension modules, which translate C++ exceptions.
    """
    try:
        yield
    except errors as error:
        if not isinstance(error, CyllamaError | OSError) and not _is_raised_by_package(error):
            raise


def _is_raised_by_package(error: Exception) -> bool:
    place = error.__traceback__
    assert place is not None
    while place.tb_next is not None:
        place = place.tb_next
    path = Path(place.tb_frame.f_code.co_filename)
    if path.suffix in (".pyx", ".pxi"):
        return True
    return PACKAGE in path.parts and linecache.getline(str(path), place.tb_lineno).lstrip().startswith("raise")
