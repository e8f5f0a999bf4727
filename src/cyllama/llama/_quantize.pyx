"""Quantize and split model files."""

import os

import numpy as np

from libc.stdint cimport int32_t, uint32_t


from cyllama._native._exit cimport RunningCall
from cyllama._native cimport libggml as ggml
from cyllama._native._c_memory cimport CMemory
from cyllama._native.libfields cimport set_enum
from cyllama._native._core cimport engine_error, start_call
from cyllama._native._handle cimport check_range, path_bytes
from cyllama.llama cimport libllama as lib
from cyllama.llama._model cimport fill_kv_overrides

from cyllama._native import _core
from cyllama._native.files import atomic_path
from cyllama.errors import EngineError
from cyllama._params import checked, enum_value
from cyllama._native._tensors import TensorType
from cyllama.llama.params import LlamaQuantizeParams


include "LlamaQuantizeParams.pxi"


cdef int _fill_imatrix(object imatrix, lib.llama_model_quantize_params * c_params, CMemory memory) except -1:
    cdef float[::1] view
    cdef lib.llama_model_imatrix_data * c = <lib.llama_model_imatrix_data *> memory.alloc(
        len(imatrix) + 1, sizeof(lib.llama_model_imatrix_data))
    for i, (name, values) in enumerate(imatrix.items()):
        row = np.array(values, np.float32).reshape(-1)
        if not row.size:
            raise ValueError(f"imatrix[{name!r}] is empty")
        memory.keep(row)
        view = row
        c[i].name = memory.text(name)
        c[i].data = &view[0]
        c[i].size = row.size
    c_params.imatrix = c
    return 0


cdef int _fill_tensor_types(object overrides, lib.llama_model_quantize_params * c_params, CMemory memory) except -1:
    pairs = list(overrides)
    cdef lib.llama_model_tensor_override * c = <lib.llama_model_tensor_override *> memory.alloc(
        len(pairs) + 1, sizeof(lib.llama_model_tensor_override))
    for i, (pattern, kind) in enumerate(pairs):
        c[i].pattern = memory.text(pattern)
        set_enum(c[i].type, enum_value(TensorType, kind, f"type of {pattern!r}"))
    c[len(pairs)].type = ggml.GGML_TYPE_COUNT
    c_params.tt_overrides = c
    return 0


cdef CMemory _fill(object params, lib.llama_model_quantize_params * c_params):
    """Write `params` over the engine's defaults; the result must live as long as `c_params` is used."""
    cdef lib.llama_model_kv_override * c_overrides
    cdef CMemory memory = CMemory()
    values = checked(params, LlamaQuantizeParams)
    c_params[0] = lib.llama_model_quantize_default_params()
    c_params.nthread = _core.get_threads()
    fill_LlamaQuantizeParams(values, c_params, memory)
    if params.imatrix is not None:
        _fill_imatrix(params.imatrix, c_params, memory)
    if params.kv_overrides is not None:
        c_overrides = <lib.llama_model_kv_override *> memory.alloc(
            len(params.kv_overrides) + 1, sizeof(lib.llama_model_kv_override))
        fill_kv_overrides(params.kv_overrides, c_overrides)
        c_params.kv_overrides = c_overrides
    if params.tt_overrides is not None:
        _fill_tensor_types(params.tt_overrides, c_params, memory)
    if "prune_layers" in values:
        c_params.prune_layers = <const int32_t *> memory.ints([*values["prune_layers"], -1])
    return memory


def llama_model_quantize(path_in: str | bytes | os.PathLike, path_out: str | bytes | os.PathLike,
                         params: LlamaQuantizeParams | None = None) -> None:
    """Quantize a model file. The target is written atomically.

    Parameters
    ----------
    path_in, path_out : path
        Different files. With ``keep_split`` the parts are written directly, beside `path_out`.
    params : LlamaQuantizeParams, optional
        With ``dry_run`` nothing is written.

    Raises
    ------
    FileNotFoundError, ValueError
    EngineError
        The engine rejects the file or the types; ``log`` has its message.

    Notes
    -----
    Releases the GIL. It cannot be cancelled. Source: ``llama_model_quantize``, llama.h.
    """
    params = LlamaQuantizeParams() if params is None else params
    cdef bytes raw_in = path_bytes(path_in, "path_in")
    target = os.fsdecode(path_out)
    if os.path.exists(target) and os.path.samefile(raw_in, target):
        raise ValueError(f"path_out is {target!r}, the same file as path_in")
    _core.load_backends()
    cdef lib.llama_model_quantize_params c_params
    cdef CMemory _memory = _fill(params, &c_params)  # lives as long as c_params
    if params.keep_split or params.dry_run:
        _quantize(raw_in, target, &c_params)
    else:
        with atomic_path(target) as temporary:
            _quantize(raw_in, temporary, &c_params)


cdef int _quantize(bytes raw_in, str path_out, lib.llama_model_quantize_params * c_params) except -1:
    cdef bytes raw_out = os.fsencode(path_out)
    cdef const char * c_in = raw_in
    cdef const char * c_out = raw_out
    cdef uint32_t code
    cdef RunningCall _running = RunningCall()  # the end of the interpreter waits for it
    start_call()
    with nogil:
        code = lib.llama_model_quantize(c_in, c_out, c_params)
    if code != 0:
        raise engine_error(EngineError, f"cannot quantise {os.fsdecode(raw_in)}", "llama", "llama_model_quantize", code)
    return 0


def llama_split_path(path_prefix: str, split_no: int, split_count: int) -> str:
    """Return the name of one part of a split model; `split_no` counts from 0. Source: ``llama_split_path``, llama.h."""
    check_range(split_count, "split_count", 1, 99999)
    check_range(split_no, "split_no", 0, split_count - 1)
    cdef bytes raw = os.fsencode(path_prefix)
    cdef bytearray buffer = bytearray(len(raw) + 64)
    cdef int n = lib.llama_split_path(buffer, len(buffer), raw, split_no, split_count)
    return os.fsdecode(bytes(buffer[:n]))


def llama_split_prefix(split_path: str, split_no: int, split_count: int) -> str | None:
    """Return the prefix of a part's name, or None for another part. Source: ``llama_split_prefix``, llama.h."""
    check_range(split_count, "split_count", 1, 99999)
    check_range(split_no, "split_no", 0, split_count - 1)
    cdef bytes raw = os.fsencode(split_path)
    cdef bytearray buffer = bytearray(len(raw) + 64)
    cdef int n = lib.llama_split_prefix(buffer, len(buffer), raw, split_no, split_count)
    return os.fsdecode(bytes(buffer[:n])) if n > 0 else None
