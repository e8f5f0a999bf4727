"""Images from text: stable-diffusion.cpp."""

from cyllama.sd._core import system_info, version

__all__ = ["system_info", "version"]
