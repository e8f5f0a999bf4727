"""Chat formats and the handlers of multimodal models, under the names of llama-cpp-python."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from cyllama import models
from cyllama.compat._chat_styles import STYLES, ChatStyle
from cyllama.compat._hub import download
from cyllama.errors import UnsupportedError
from cyllama.llama import llama_chat_builtin_templates

__all__ = [
    "Gemma4ChatHandler",
    "Llama3VisionAlphaChatHandler",
    "Llava15ChatHandler",
    "Llava16ChatHandler",
    "MTMDChatHandler",
    "MiniCPMv26ChatHandler",
    "MoondreamChatHandler",
    "NanoLlavaChatHandler",
    "Qwen25VLChatHandler",
    "chat_style",
]

FROM_FILE = "chat_template."  # then the name of a template of the file
NEED_TOKENIZER = ("functionary", "functionary-v1", "functionary-v2")


def chat_style(name: str | None, metadata: Mapping[str, str]) -> ChatStyle | None:
    """Return the style of a chat format; None for the template of the file.

    Parameters
    ----------
    name : str, optional
        A format of llama-cpp-python, the name of a built-in template of llama.cpp, or a Jinja template.
    metadata : mapping
        Those of the file.

    Raises
    ------
    ValueError
        There is no such format; the message names the nearest.
    UnsupportedError
        The format needs a tokenizer of Python.
    """
    if name is None or name == f"{FROM_FILE}default":
        return None
    if name in STYLES:
        return STYLES[name]
    if name in NEED_TOKENIZER:
        raise UnsupportedError(f"chat_format {name!r} is not supported: it needs a tokenizer of transformers")
    if name.startswith(FROM_FILE) and f"tokenizer.{name}" in metadata:
        return ChatStyle(text=metadata[f"tokenizer.{name}"])
    builtin = llama_chat_builtin_templates()
    if name in builtin or "{{" in name or "{%" in name:
        return ChatStyle(text=name)
    near = difflib.get_close_matches(name, [*STYLES, *builtin], 1)
    hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(sorted({*STYLES, *builtin}))}"
    raise ValueError(f"chat_format is {name!r:.100}; {hint}")


class MTMDChatHandler:
    """Images and audio for a model: ``Llama(path, chat_handler=MTMDChatHandler(projector))``.

    Parameters
    ----------
    clip_model_path : str or path
        The projector, a file or a name of `cyllama.models`.
    verbose : bool
        No effect, see `cyllama.log`.
    use_gpu : bool
        Keep the projector on the GPU.
    allow_urls, allow_paths
        The addresses and the files that messages may refer to, as of `cyllama.LLM`. By default only data URIs are
        opened; llama-cpp-python opens everything.
    """

    chat_format: ClassVar[str | None] = None
    """The format of the chats; None for the template of the file."""

    def __init__(
        self,
        clip_model_path: str | os.PathLike[str],
        verbose: bool = True,
        use_gpu: bool = True,
        *,
        allow_urls: bool | str | Sequence[str] = False,
        allow_paths: bool | str | Sequence[str] = False,
    ) -> None:
        self.clip_model_path, self.verbose, self.use_gpu = clip_model_path, verbose, use_gpu
        self.allow_urls, self.allow_paths = allow_urls, allow_paths

    @classmethod
    def from_pretrained(
        cls,
        repo_id: str,
        filename: str,
        local_dir: str | os.PathLike[str] | None = None,
        local_dir_use_symlinks: bool | str = "auto",
        cache_dir: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Load a projector of the Hugging Face hub, as `Llama.from_pretrained`."""
        return cls(download(repo_id, filename, local_dir=local_dir, cache_dir=cache_dir), **kwargs)

    def settings(self) -> dict[str, Any]:
        """Return keyword arguments of `cyllama.LLM`."""
        return {
            "mmproj": models.resolve(self.clip_model_path),
            "allow_urls": self.allow_urls,
            "allow_paths": self.allow_paths,
        }


class Llava15ChatHandler(MTMDChatHandler):
    """LLaVA 1.5."""

    chat_format = "llava-1-5"


class Llava16ChatHandler(MTMDChatHandler):
    """LLaVA 1.6."""

    chat_format = "llava-1-6"


class MoondreamChatHandler(MTMDChatHandler):
    """Moondream 2."""

    chat_format = "moondream2"


class NanoLlavaChatHandler(MTMDChatHandler):
    """nanoLLaVA."""

    chat_format = "chatml"


class Llama3VisionAlphaChatHandler(MTMDChatHandler):
    """Llama 3 vision alpha."""

    chat_format = "llama-3"


class MiniCPMv26ChatHandler(MTMDChatHandler):
    """MiniCPM-V 2.6."""

    chat_format = "chatml"


class Qwen25VLChatHandler(MTMDChatHandler):
    """Qwen2.5-VL."""

    chat_format = "qwen"


class Gemma4ChatHandler(MTMDChatHandler):
    """Gemma 4, with the template of the file."""
