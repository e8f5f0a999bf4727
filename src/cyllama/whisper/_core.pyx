"""The speech recognition engine (whisper.cpp)."""

from cyllama._native cimport libggml as ggml
from cyllama._native._core cimport log_hook
from cyllama.whisper cimport libwhisper as lib

from cyllama._native import _core

_core.check_abi(__name__, (ggml.ggml_version().decode(), sizeof(ggml.ggml_tensor), ggml.GGML_MAX_NAME))
lib.whisper_log_set(log_hook, <void *> <const char *> b"whisper")


def version() -> str:
    """Version of whisper.cpp. Source: ``whisper_version``, whisper.h."""
    return lib.whisper_version().decode()


def system_info() -> str:
    """Features of the backends. Source: ``whisper_print_system_info``, whisper.h."""
    _core.load_backends()
    return lib.whisper_print_system_info().decode()


def registry_address() -> int:
    """A number that is the same for all engines that share one backend registry (used by the tests)."""
    _core.load_backends()
    return <size_t> <void *> ggml.ggml_backend_reg_get(0)
