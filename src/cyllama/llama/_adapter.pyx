"""LoRA adapters and control vectors."""

import math
import os
from dataclasses import dataclass

import numpy as np

cimport cython
from libc.string cimport memcpy
from libcpp.vector cimport vector

from cyllama._native._exit cimport RunningCall
from cyllama._native._core cimport engine_error, start_call
from cyllama._native._files cimport CFile
from cyllama._native._handle cimport Handle, path_bytes
from cyllama.llama cimport libcommon as common
from cyllama.llama cimport libllama as lib
from cyllama.llama._model cimport LlamaModel

from cyllama.errors import ModelLoadError
from cyllama._native._gguf import GGUFContext


@cython.no_gc_clear  # __dealloc__ uses the fields, the parent first of all
cdef class LlamaAdapterLora(Handle):
    """A LoRA adapter of a model; used with :meth:`LlamaContext.set_adapters_lora`.

    Parameters
    ----------
    model : LlamaModel
        Kept open.
    path : path
        A GGUF file with an adapter for this model.

    Raises
    ------
    FileNotFoundError
    ModelLoadError
        The file is not an adapter, or belongs to another model.

    Notes
    -----
    Releases the GIL while loading. Source: ``llama_adapter_lora_init``, llama.h.
    """

    cdef lib.llama_adapter_lora * _ptr
    cdef readonly LlamaModel model

    def __cinit__(self, LlamaModel model not None, path=None):
        model._check()
        self.model = model
        if path is None:
            return
        cdef bytes raw = path_bytes(path, "path")
        cdef const char * c_path = raw
        start_call()
        model._hold()
        try:
            with nogil:
                self._ptr = lib.llama_adapter_lora_init(model._ptr, c_path)
        finally:
            model._unhold()
        self._loaded(os.fsdecode(raw))

    def __init__(self, model: LlamaModel, path: str | bytes | os.PathLike | None = None) -> None:
        if path is None and not self._open:
            raise TypeError("LlamaAdapterLora() needs path")

    def __dealloc__(self):
        self._dispose()

    def _loaded(self, what: str) -> None:
        if self._ptr == NULL:
            raise engine_error(ModelLoadError, f"{what} is not an adapter for this model", "llama",
                               "llama_adapter_lora_init", None)
        self._opened("LlamaAdapterLora", self.model)

    cdef int _release(self) noexcept:
        cdef lib.llama_adapter_lora * c_adapter = self._ptr
        self._ptr = NULL
        with nogil:
            lib.llama_adapter_lora_free(c_adapter)
        return 0

    cdef void * _address(self) noexcept:
        return self._ptr

    @classmethod
    def from_fileobj(cls, model: LlamaModel, fileobj) -> LlamaAdapterLora:
        """Load from an open binary file. Source: ``llama_adapter_lora_init_from_file_ptr``, llama.h."""
        cdef LlamaAdapterLora self = LlamaAdapterLora.__new__(LlamaAdapterLora, model)
        cdef CFile stream = CFile(fileobj)
        start_call()
        self.model._hold()
        try:
            with nogil:
                self._ptr = lib.llama_adapter_lora_init_from_file_ptr(self.model._ptr, stream.ptr)
        finally:
            self.model._unhold()
        self._loaded("the file")
        return self

    def metadata(self) -> dict:
        """Return the scalar metadata of the file as strings, by key.

        Source: ``llama_adapter_meta_key_by_index``, ``llama_adapter_meta_val_str_by_index``, llama.h.
        """
        self._check()
        cdef int i
        values = {}
        for i in range(lib.llama_adapter_meta_count(self._ptr)):
            values[self._meta(i, True)] = self._meta(i, False)
        return values

    def meta_val_str(self, key: str) -> str | None:
        """Return one scalar of the metadata, or None. Source: ``llama_adapter_meta_val_str``, llama.h."""
        self._check()
        cdef bytearray buffer = bytearray(65536)
        cdef int n = lib.llama_adapter_meta_val_str(self._ptr, key.encode(), buffer, len(buffer))
        return None if n < 0 else bytes(buffer[:min(n, 65535)]).decode("utf-8", "replace")

    def _meta(self, i: int, of_key: bool) -> str:
        cdef bytearray buffer = bytearray(65536)
        cdef int n
        if of_key:
            n = lib.llama_adapter_meta_key_by_index(self._ptr, i, buffer, len(buffer))
        else:
            n = lib.llama_adapter_meta_val_str_by_index(self._ptr, i, buffer, len(buffer))
        return bytes(buffer[:max(0, min(n, 65535))]).decode("utf-8", "replace")

    @property
    def alora_invocation_tokens(self) -> list[int]:
        """Tokens that activate an aLoRA adapter; empty for other adapters.

        Source: ``llama_adapter_get_alora_invocation_tokens``, llama.h.
        """
        self._check()
        cdef size_t n = lib.llama_adapter_get_alora_n_invocation_tokens(self._ptr)
        cdef const lib.llama_token * c_tokens = lib.llama_adapter_get_alora_invocation_tokens(self._ptr)
        return [c_tokens[i] for i in range(n)]


@dataclass(frozen=True)
class ControlVector:
    """A control vector, for :meth:`LlamaContext.set_adapter_cvec`.

    Attributes
    ----------
    data : float32 array, shape (n_layers, n_embd)
        Row 0 belongs to layer 1.
    """

    data: np.ndarray


MAX_LAYER = 65535
MAX_WIDTH = 1 << 20


def _check_directions(path: object) -> None:
    """Reject tensors that make the engine write out of bounds or fail without a message."""
    with GGUFContext.from_file(path) as file:
        tensors = file.tensors()
    if not tensors:
        raise ModelLoadError(f"{path} has no tensors, expected a control vector", engine="llama")
    for info in tensors:
        kind, _, layer = info.name.partition(".")
        if kind != "direction" or not layer.isascii() or not layer.isdigit() or not 1 <= int(layer) <= MAX_LAYER:
            raise ModelLoadError(f"{path} has the tensor {info.name!r}, expected direction.1 to "
                                 f"direction.{MAX_LAYER}", engine="llama")
        if info.type.name != "F32" or len(info.shape) != 1 or not 1 <= info.shape[0] <= MAX_WIDTH:
            raise ModelLoadError(f"{path}: {info.name!r} has the type {info.type.name} and the shape {info.shape}, "
                                 "expected F32 and one dimension", engine="llama")


def load_control_vector(vectors: list) -> ControlVector:
    """Load control vectors and return their weighted sum.

    Parameters
    ----------
    vectors : path, or sequence of (path, strength)

    Raises
    ------
    FileNotFoundError, ModelLoadError

    Notes
    -----
    Releases the GIL. Source: ``common_control_vector_load``, common/common.h.
    """
    pairs = [(vectors, 1.0)] if isinstance(vectors, (str, bytes, os.PathLike)) else list(vectors)
    cdef vector[common.common_control_vector_load_info] infos
    cdef common.common_control_vector_load_info info
    cdef common.common_control_vector_data data
    cdef RunningCall _running = RunningCall()  # the end of the interpreter waits for it
    cdef float[:, ::1] view
    if not pairs:
        raise ValueError("vectors is empty, expected at least one file")
    for path, strength in pairs:
        info.fname = path_bytes(path, "path")
        if not math.isfinite(strength):
            raise ValueError(f"the strength of {path} is {strength}, expected a finite number")
        _check_directions(path)
        info.strength = strength
        infos.push_back(info)
    start_call()
    with nogil:
        data = common.common_control_vector_load(infos)
    if data.n_embd <= 0 or data.data.size() == 0:
        raise engine_error(ModelLoadError, f"cannot load control vectors from {pairs}", "llama",
                           "common_control_vector_load", None)
    rows = np.empty((data.data.size() // data.n_embd, data.n_embd), np.float32)
    view = rows
    memcpy(&view[0, 0], data.data.data(), rows.nbytes)
    return ControlVector(rows)
