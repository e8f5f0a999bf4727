"""Four native engines in one Python process, on one ggml: llama.cpp, mtmd, whisper.cpp, stable-diffusion.cpp.

Importing this package loads none of them; each name is loaded when it is first used.
"""

from __future__ import annotations

import importlib

from cyllama import _extensions, errors
from cyllama.errors import *  # noqa: F403 - the exception classes belong to the package's face

_extensions.install()

TYPE_CHECKING = False  # importing typing takes as long as all the rest
if TYPE_CHECKING:
    from cyllama import cli, llama, llava, log, models, pipelines, sd, whisper
    from cyllama._native import build_info, devices, get_threads, set_threads
    from cyllama.llama import (
        LLM,
        CommonParams,
        LlamaBatch,
        LlamaContext,
        LlamaModel,
        LlamaSampler,
        common_batch_add,
        common_batch_clear,
        common_context_params_to_llama,
        common_model_params_to_llama,
        common_token_to_piece,
        common_tokenize,
        ggml_time_us,
        llama_backend_free,
        llama_backend_init,
        llama_numa_init,
        llama_sampler_chain_default_params,
    )

    __version__: str

_SUBPACKAGES = ("cli", "llama", "llava", "log", "models", "pipelines", "sd", "whisper")
_NATIVE = ("build_info", "devices", "get_threads", "set_threads")

__all__ = [
    "LLM",
    "CommonParams",
    "LlamaBatch",
    "LlamaContext",
    "LlamaModel",
    "LlamaSampler",
    "__version__",
    "build_info",
    "cli",
    "common_batch_add",
    "common_batch_clear",
    "common_context_params_to_llama",
    "common_model_params_to_llama",
    "common_token_to_piece",
    "common_tokenize",
    "devices",
    "get_threads",
    "ggml_time_us",
    "llama",
    "llama_backend_free",
    "llama_backend_init",
    "llama_numa_init",
    "llama_sampler_chain_default_params",
    "llava",
    "log",
    "models",
    "pipelines",
    "sd",
    "set_threads",
    "whisper",
]
_LLAMA = frozenset(__all__) - {*_SUBPACKAGES, *_NATIVE, "__version__"}
__all__ += errors.__all__


def __getattr__(name: str) -> object:
    if name in _SUBPACKAGES:
        return importlib.import_module(f"cyllama.{name}")
    if name == "__version__":
        value = importlib.import_module("importlib.metadata").version("cyllama")
    elif name in _NATIVE:
        value = getattr(importlib.import_module("cyllama._native"), name)
    elif name in _LLAMA:
        value = getattr(importlib.import_module("cyllama.llama"), name)
    else:
        raise AttributeError(f"module 'cyllama' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
