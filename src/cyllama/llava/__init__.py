"""Images and sound into a language model: mtmd, llama.cpp's multimodal library."""

from cyllama.llava._core import system_info, version

__all__ = ["system_info", "version"]
