"""Reasons of failures that stable-diffusion.cpp reports as text in its log only."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["failure_reason"]

SEPARATOR = " - "
"""Text between the source position and the message of a log line (``log_printf``, util.cpp)."""


def failure_reason(log: Sequence[str]) -> str:
    """Return the last message of the log without its source position; empty for an empty log."""
    return log[-1].split(SEPARATOR, 1)[-1].strip() if log else ""
