"""Files that come with the package, for first steps."""

from __future__ import annotations

from pathlib import Path

__all__ = ["SPEECH"]

SPEECH = Path(__file__).with_name("a-large-red-circle-on-white.flac")
"""Three seconds of a synthetic voice (espeak-ng) that says "A large red circle on white."."""
