"""Speech to text: whisper.cpp."""

from cyllama.whisper._core import system_info, version

__all__ = ["system_info", "version"]
