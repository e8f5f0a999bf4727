"""Version, system information and log of stable-diffusion.cpp."""

from cyllama._native cimport libggml as ggml
from cyllama._native._core cimport log_hook
from cyllama.sd cimport libsd as lib

from cyllama._native import _core

_core.check_abi(__name__, (ggml.ggml_version().decode(), sizeof(ggml.ggml_tensor), ggml.GGML_MAX_NAME))


cdef void _log(lib.sd_log_level_t level, const char * text, void * data) noexcept nogil:
    """Forward a log message with the level converted to ggml's."""
    cdef ggml.ggml_log_level c_level = ggml.GGML_LOG_LEVEL_DEBUG
    if level == lib.SD_LOG_INFO:
        c_level = ggml.GGML_LOG_LEVEL_INFO
    elif level == lib.SD_LOG_WARN:
        c_level = ggml.GGML_LOG_LEVEL_WARN
    elif level == lib.SD_LOG_ERROR:
        c_level = ggml.GGML_LOG_LEVEL_ERROR
    log_hook(c_level, text, data)


lib.sd_set_log_callback(_log, <void *> <const char *> b"sd")


def version() -> str:
    """Return the version of stable-diffusion.cpp. Source: ``sd_version``, stable-diffusion.h."""
    return lib.sd_version().decode()


def commit() -> str:
    """Return the commit of stable-diffusion.cpp, or "unknown". Source: ``sd_commit``, stable-diffusion.h."""
    return lib.sd_commit().decode()


def system_info() -> str:
    """Return the features of the backends. Source: ``sd_get_system_info``, stable-diffusion.h."""
    _core.load_backends()
    return lib.sd_get_system_info().decode()


def registry_address() -> int:
    """Return the address of the backend registry, which all engines share (used by the tests)."""
    _core.load_backends()
    return <size_t> <void *> ggml.ggml_backend_reg_get(0)
