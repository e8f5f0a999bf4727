from cyllama._native._handle cimport Handle
from cyllama.whisper cimport libparakeet as lib


cdef class ParakeetContext(Handle):
    cdef lib.parakeet_context * _ptr
    cdef readonly object params
    cdef readonly int n_vocab

    cdef int _load(self, object file, object params, object cancel) except -1
    cdef int _check_token(self, object token, str what) except -1
    cdef bytes _token_bytes(self, lib.parakeet_token token)
