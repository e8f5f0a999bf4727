"""The engine whisper.cpp: version, features and benchmarks."""

import threading

from cyllama._native cimport libggml as ggml
from cyllama._native._core cimport log_hook
from cyllama._native._handle cimport check_range
from cyllama.whisper cimport libwhisper as lib

from cyllama._native import _core

_core.check_abi(__name__, (ggml.ggml_version().decode(), sizeof(ggml.ggml_tensor), ggml.GGML_MAX_NAME))
lib.whisper_log_set(log_hook, <void *> <const char *> b"whisper")


_bench_lock = threading.Lock()


def version() -> str:
    """Return the version of whisper.cpp. Source: ``whisper_version``, whisper.h."""
    return lib.whisper_version().decode()


def system_info() -> str:
    """Return the features of the backends. Source: ``whisper_print_system_info``, whisper.h."""
    _core.load_backends()
    return lib.whisper_print_system_info().decode()


def bench_memcpy(n_threads: int = 1) -> str:
    """Measure the speed of copying memory, for some seconds; return a table.

    Source: ``whisper_bench_memcpy_str``, whisper.h.
    """
    return _bench(n_threads, False)


def bench_ggml_mul_mat(n_threads: int = 1) -> str:
    """Measure the speed of multiplying matrices of each type, for some minutes; return a table.

    Source: ``whisper_bench_ggml_mul_mat_str``, whisper.h.
    """
    return _bench(n_threads, True)


def _bench(n_threads: int, multiplies: bool) -> str:
    _core.load_backends()
    check_range(n_threads, "n_threads", 1, 512)
    cdef int c_threads = n_threads
    cdef bint c_matrices = multiplies
    cdef const char * text = NULL
    with _bench_lock, nogil:  # the engine has one buffer for the text
        text = lib.whisper_bench_ggml_mul_mat_str(c_threads) if c_matrices else lib.whisper_bench_memcpy_str(c_threads)
    return text.decode()


def registry_address() -> int:
    """Return the address of the first backend: equal in all engines that share one registry (for tests)."""
    _core.load_backends()
    return <size_t> <void *> ggml.ggml_backend_reg_get(0)
