"""The multimodal engine (mtmd)."""

import os

from cyllama._native._exit cimport RunningCall
from cyllama._native cimport libggml as ggml
from cyllama._native._core cimport log_hook, start_call
from cyllama._native._handle cimport path_bytes
from cyllama.llama cimport libllama as llama
from cyllama.llava cimport libmtmd as lib

from cyllama._native import _core
from cyllama.llama._media import check_projector

_core.check_abi(__name__, (ggml.ggml_version().decode(), sizeof(ggml.ggml_tensor), ggml.GGML_MAX_NAME))
lib.mtmd_helper_log_set(log_hook, <void *> <const char *> b"llava")


def version() -> str:
    """Return the version of llama.cpp, which contains mtmd. Source: ``llama_version``, llama.h."""
    return llama.llama_version().decode()


def system_info() -> str:
    """Return the features of the backends. Source: ``llama_print_system_info``, llama.h."""
    _core.load_backends()
    return llama.llama_print_system_info().decode()


def default_marker() -> str:
    """Return the placeholder of an image or audio in a prompt. Source: ``mtmd_default_marker``, mtmd.h."""
    return lib.mtmd_default_marker().decode()


def get_cap_from_file(path: str | bytes | os.PathLike) -> dict[str, bool]:
    """Return what a projector file accepts, without loading it: ``vision`` and ``audio``.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError
    ModelLoadError
        It is no projector file.

    Notes
    -----
    Releases the GIL. Source: ``mtmd_get_cap_from_file``, mtmd.h.
    """
    cdef bytes raw = path_bytes(path, "path")
    cdef const char * c_path = raw
    cdef lib.mtmd_caps caps
    cdef RunningCall _running = RunningCall()  # the end of the interpreter waits for it
    check_projector(os.fsdecode(raw))
    _core.load_backends()
    start_call()
    with nogil:
        caps = lib.mtmd_get_cap_from_file(c_path)
    return {"vision": caps.inp_vision, "audio": caps.inp_audio}


def registry_address() -> int:
    """Return the address of the backend registry, which all engines share (used by the tests)."""
    _core.load_backends()
    return <size_t> <void *> ggml.ggml_backend_reg_get(0)
