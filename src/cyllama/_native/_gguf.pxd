from cyllama._native._handle cimport Handle
from cyllama._native.libggml cimport ggml_context
from cyllama._native cimport libgguf as lib


cdef class GGUFContext(Handle):
    cdef lib.gguf_context * _ptr
    cdef ggml_context * _tensors    # tensor headers that were added; their data is in _data
    cdef object _data               # arrays of added tensors, kept alive
    cdef readonly object path       # str, or None

    cdef long long _key_id(self, object key) except -2
    cdef long long _tensor_id(self, object name) except -2
    cdef int _made(self, str what) except -1
