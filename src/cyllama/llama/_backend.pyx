"""Process-wide functions of llama.h, under upstream's names."""

from cyllama._native cimport libggml as ggml
from cyllama.llama cimport libllama as lib

from cyllama._native import _core
from cyllama._params import enum_value
from cyllama.llama._enums import NumaStrategy


def llama_backend_init() -> None:
    """Load the backends. Loading a model does this too; provided because upstream's programs call it.

    Source: ``llama_backend_init``, llama.h.
    """
    _core.load_backends()
    with nogil:
        lib.llama_backend_init()


def llama_backend_free() -> None:
    """Free the tables of quantization. The backends stay loaded. Source: ``llama_backend_free``, llama.h."""
    with nogil:
        lib.llama_backend_free()


def llama_numa_init(numa: int | str) -> None:
    """Set the NUMA strategy of the CPU backend (member, number or name of :class:`NumaStrategy`), once.

    Source: ``llama_numa_init``, llama.h.
    """
    cdef ggml.ggml_numa_strategy c_numa = <ggml.ggml_numa_strategy> <int> enum_value(NumaStrategy, numa, "numa")
    _core.load_backends()
    with nogil:
        lib.llama_numa_init(c_numa)


def llama_version() -> str:
    """Return the version of llama.cpp. Source: ``llama_version``, llama.h."""
    return lib.llama_version().decode()


def llama_print_system_info() -> str:
    """Return the backends' features, as upstream prints them. Source: ``llama_print_system_info``, llama.h."""
    _core.load_backends()
    return lib.llama_print_system_info().decode()


def ggml_time_us() -> int:
    """Return the microseconds of a monotonic clock. Source: ``ggml_time_us``, ggml.h."""
    return ggml.ggml_time_us()


def llama_time_us() -> int:
    """Return the microseconds of a monotonic clock. Source: ``llama_time_us``, llama.h."""
    return lib.llama_time_us()


def llama_max_devices() -> int:
    """Return the maximum number of devices for one model. Source: ``llama_max_devices``, llama.h."""
    return lib.llama_max_devices()


def llama_max_parallel_sequences() -> int:
    """Return the maximum number of sequences of a context. Source: ``llama_max_parallel_sequences``, llama.h."""
    return lib.llama_max_parallel_sequences()


def llama_max_tensor_buft_overrides() -> int:
    """Return the maximum number of tensor buffer overrides. Source: ``llama_max_tensor_buft_overrides``, llama.h."""
    return lib.llama_max_tensor_buft_overrides()


def llama_supports_mmap() -> bool:
    """Return whether this platform supports memory-mapped models. Source: ``llama_supports_mmap``, llama.h."""
    return lib.llama_supports_mmap()


def llama_supports_mlock() -> bool:
    """Return whether this platform supports locking memory. Source: ``llama_supports_mlock``, llama.h."""
    return lib.llama_supports_mlock()


def llama_supports_gpu_offload() -> bool:
    """Return whether a GPU backend is loaded. Source: ``llama_supports_gpu_offload``, llama.h."""
    _core.load_backends()
    return lib.llama_supports_gpu_offload()


def llama_supports_rpc() -> bool:
    """Return whether the RPC backend is loaded. Source: ``llama_supports_rpc``, llama.h."""
    _core.load_backends()
    return lib.llama_supports_rpc()


def llama_flash_attn_type_name(flash_attn_type: int | str) -> str:
    """Return upstream's name of a flash attention mode. Source: ``llama_flash_attn_type_name``, llama.h."""
    from cyllama.llama._enums import FlashAttnType
    value = enum_value(FlashAttnType, flash_attn_type, "flash_attn_type")
    return lib.llama_flash_attn_type_name(<lib.llama_flash_attn_type> <int> value).decode()


def llama_load_mode_name(load_mode: int | str) -> str:
    """Return upstream's name of a load mode. Source: ``llama_load_mode_name``, llama.h."""
    from cyllama.llama._enums import LoadMode
    value = enum_value(LoadMode, load_mode, "load_mode")
    return lib.llama_load_mode_name(<lib.llama_load_mode> <int> value).decode()


def llama_load_mode_from_str(name: str) -> int:
    """Return the load mode with upstream's `name`; ValueError for others. Source: ``llama_load_mode_from_str``."""
    from cyllama.llama._enums import LoadMode
    for mode in LoadMode:
        if llama_load_mode_name(mode) == name:
            return LoadMode(<int> lib.llama_load_mode_from_str(name.encode()))
    raise ValueError(f"name is {name!r}, expected one of {[llama_load_mode_name(mode) for mode in LoadMode]}")
