"""Cancelling a call from outside: the protocol of `cancel=` and the events that it is combined with."""

from __future__ import annotations

from typing import Any, Protocol

from cyllama.errors import CancelledError

__all__ = ["POLL_SECONDS", "AnyCancel", "Cancel", "check_cancel", "raise_if_cancelled"]

POLL_SECONDS = 0.05
"""How long a waiting call sleeps before it looks at its `cancel` again."""


class Cancel(Protocol):
    """An object that stops a call once it is set, such as ``threading.Event``."""

    def is_set(self) -> bool:
        """Return whether the call has to stop."""


class AnyCancel:
    """Combine several events: it is set when one of them is.

    Parameters
    ----------
    *events : Cancel or None
        None is an event that is never set.

    Raises
    ------
    TypeError
        An argument has no ``is_set()``.
    """

    def __init__(self, *events: Cancel | None) -> None:
        for event in events:
            check_cancel(event)
        self._events = [event for event in events if event is not None]

    def is_set(self) -> bool:
        """Return whether one of the events is set."""
        return any([event.is_set() for event in self._events])  # a list: a generator takes longer than the events


def check_cancel(cancel: Any) -> None:
    """Check the type of a `cancel` argument.

    Raises
    ------
    TypeError
        It is neither None nor an object with ``is_set()``.
    """
    if cancel is not None and not callable(getattr(cancel, "is_set", None)):
        raise TypeError(f"cancel is {cancel!r}, expected an object with is_set(), such as threading.Event")


def raise_if_cancelled(cancel: Cancel | None, what: str = "the call") -> None:
    """Raise if a `cancel` argument is set.

    Raises
    ------
    CancelledError
        Names `what` was cancelled.
    """
    if cancel is not None and cancel.is_set():
        raise CancelledError(f"{what} was cancelled")
