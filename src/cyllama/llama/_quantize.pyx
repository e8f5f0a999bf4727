"""Quantising and splitting model files."""

import os

import numpy as np

from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport int32_t, uint32_t

from cyllama._native cimport libggml as ggml
from cyllama._native._core cimport engine_error, start_call
from cyllama._native._handle cimport check_range, path_bytes
from cyllama.llama cimport libllama as lib
from cyllama.llama._model cimport fill_kv_overrides

from cyllama._native import _core
from cyllama._native.files import atomic_path
from cyllama.errors import EngineError
from cyllama.llama._enums import FileType, TensorType, enum_value
from cyllama.llama.params import LlamaQuantizeParams


cdef class _Lists:
    """The arrays of ``llama_model_quantize_params``, and what they point to."""

    cdef list keep
    cdef lib.llama_model_imatrix_data * imatrix
    cdef lib.llama_model_kv_override * kv_overrides
    cdef lib.llama_model_tensor_override * tt_overrides
    cdef int32_t * prune_layers

    def __cinit__(self):
        self.keep = []

    def __dealloc__(self):
        PyMem_Free(self.imatrix)
        PyMem_Free(self.kv_overrides)
        PyMem_Free(self.tt_overrides)
        PyMem_Free(self.prune_layers)

    cdef const char * text(self, str value) except NULL:
        raw = value.encode()
        self.keep.append(raw)
        return raw

    cdef int fill_imatrix(self, object imatrix) except -1:
        cdef float[::1] view
        self.imatrix = <lib.llama_model_imatrix_data *> PyMem_Calloc(
            len(imatrix) + 1, sizeof(lib.llama_model_imatrix_data))
        if self.imatrix == NULL:
            raise MemoryError()
        for i, (name, values) in enumerate(imatrix.items()):
            row = np.array(values, np.float32).reshape(-1)
            if not row.size:
                raise ValueError(f"imatrix[{name!r}] is empty")
            self.keep.append(row)
            view = row
            self.imatrix[i].name = self.text(name)
            self.imatrix[i].data = &view[0]
            self.imatrix[i].size = row.size
        return 0

    cdef int fill_tensor_types(self, object overrides) except -1:
        pairs = list(overrides)
        self.tt_overrides = <lib.llama_model_tensor_override *> PyMem_Calloc(
            len(pairs) + 1, sizeof(lib.llama_model_tensor_override))
        if self.tt_overrides == NULL:
            raise MemoryError()
        for i, (pattern, kind) in enumerate(pairs):
            self.tt_overrides[i].pattern = self.text(pattern)
            self.tt_overrides[i].type = <ggml.ggml_type> <int> enum_value(TensorType, kind, f"type of {pattern!r}")
        self.tt_overrides[len(pairs)].type = ggml.GGML_TYPE_COUNT
        return 0

    cdef int fill_prune(self, object layers) except -1:
        found = list(layers)
        self.prune_layers = <int32_t *> PyMem_Calloc(len(found) + 1, sizeof(int32_t))
        if self.prune_layers == NULL:
            raise MemoryError()
        for i, layer in enumerate(found):
            check_range(layer, "prune_layers", 0, 2**20)
            self.prune_layers[i] = layer
        self.prune_layers[len(found)] = -1
        return 0

    cdef int fill_kv(self, object overrides) except -1:
        self.kv_overrides = <lib.llama_model_kv_override *> PyMem_Calloc(
            len(overrides) + 1, sizeof(lib.llama_model_kv_override))
        if self.kv_overrides == NULL:
            raise MemoryError()
        return fill_kv_overrides(overrides, self.kv_overrides)


cdef _Lists _fill(object params, lib.llama_model_quantize_params * c_params):
    cdef _Lists lists = _Lists()
    c_params[0] = lib.llama_model_quantize_default_params()
    c_params.nthread = _core.get_threads() if params.nthread is None else params.nthread
    if params.ftype is not None:
        c_params.ftype = <lib.llama_ftype> <int> enum_value(FileType, params.ftype, "ftype")
    if params.output_tensor_type is not None:
        c_params.output_tensor_type = <ggml.ggml_type> <int> enum_value(
            TensorType, params.output_tensor_type, "output_tensor_type")
    if params.token_embedding_type is not None:
        c_params.token_embedding_type = <ggml.ggml_type> <int> enum_value(
            TensorType, params.token_embedding_type, "token_embedding_type")
    for name in ("allow_requantize", "quantize_output_tensor", "only_copy", "pure", "keep_split", "dry_run"):
        if getattr(params, name) is not None and not isinstance(getattr(params, name), bool):
            raise TypeError(f"{name} is {getattr(params, name)!r}, expected True or False")
    if params.allow_requantize is not None:
        c_params.allow_requantize = params.allow_requantize
    if params.quantize_output_tensor is not None:
        c_params.quantize_output_tensor = params.quantize_output_tensor
    if params.only_copy is not None:
        c_params.only_copy = params.only_copy
    if params.pure is not None:
        c_params.pure = params.pure
    if params.keep_split is not None:
        c_params.keep_split = params.keep_split
    if params.dry_run is not None:
        c_params.dry_run = params.dry_run
    if params.max_buf_size is not None:
        check_range(params.max_buf_size, "max_buf_size", 0, 2**62)
        c_params.max_buf_size = params.max_buf_size
    if params.imatrix is not None:
        lists.fill_imatrix(params.imatrix)
        c_params.imatrix = lists.imatrix
    if params.kv_overrides is not None:
        lists.fill_kv(params.kv_overrides)
        c_params.kv_overrides = lists.kv_overrides
    if params.tt_overrides is not None:
        lists.fill_tensor_types(params.tt_overrides)
        c_params.tt_overrides = lists.tt_overrides
    if params.prune_layers is not None:
        lists.fill_prune(params.prune_layers)
        c_params.prune_layers = lists.prune_layers
    return lists


def llama_model_quantize(path_in: str | bytes | os.PathLike, path_out: str | bytes | os.PathLike,
                         params: LlamaQuantizeParams | None = None) -> None:
    """Quantise a model file into another, atomically.

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
        The engine refuses the file or the types; its reason is in ``log``.

    Notes
    -----
    Releases the GIL. It cannot be cancelled. Source: ``llama_model_quantize``, llama.h.
    """
    params = LlamaQuantizeParams() if params is None else params
    if not isinstance(params, LlamaQuantizeParams):
        raise TypeError(f"params is {params!r}, expected LlamaQuantizeParams")
    cdef bytes raw_in = path_bytes(path_in, "path_in")
    target = os.fsdecode(path_out)
    if os.path.exists(target) and os.path.samefile(raw_in, target):
        raise ValueError(f"path_out is {target!r}, the same file as path_in")
    _core.load_backends()
    cdef lib.llama_model_quantize_params c_params
    cdef _Lists _lists = _fill(params, &c_params)  # lives as long as c_params
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
    start_call()
    with nogil:
        code = lib.llama_model_quantize(c_in, c_out, c_params)
    if code != 0:
        raise engine_error(EngineError, f"cannot quantise {os.fsdecode(raw_in)}", "llama", "llama_model_quantize", code)
    return 0


def llama_split_path(path_prefix: str, split_no: int, split_count: int) -> str:
    """Name of one part of a split model; `split_no` counts from 0. Source: ``llama_split_path``, llama.h."""
    check_range(split_count, "split_count", 1, 99999)
    check_range(split_no, "split_no", 0, split_count - 1)
    cdef bytes raw = os.fsencode(path_prefix)
    cdef bytearray buffer = bytearray(len(raw) + 64)
    cdef int n = lib.llama_split_path(buffer, len(buffer), raw, split_no, split_count)
    return os.fsdecode(bytes(buffer[:n]))


def llama_split_prefix(split_path: str, split_no: int, split_count: int) -> str | None:
    """The prefix of a part's name, or None when it is not that part. Source: ``llama_split_prefix``, llama.h."""
    check_range(split_count, "split_count", 1, 99999)
    check_range(split_no, "split_no", 0, split_count - 1)
    cdef bytes raw = os.fsencode(split_path)
    cdef bytearray buffer = bytearray(len(raw) + 64)
    cdef int n = lib.llama_split_prefix(buffer, len(buffer), raw, split_no, split_count)
    return os.fsdecode(bytes(buffer[:n])) if n > 0 else None
