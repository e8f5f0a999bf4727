from cyllama._native._handle cimport CallState, Handle
from cyllama.whisper cimport libparakeet as lib
from cyllama.whisper._parakeet cimport ParakeetContext


cdef class ParakeetState(Handle):
    cdef lib.parakeet_state * _ptr
    cdef readonly ParakeetContext context
    cdef unsigned long _callback_thread
    cdef bint _has_mel

    cdef int _check_results(self) except -1
    cdef int _check_segment(self, object i) except -1
    cdef int _check_token(self, object i, object j) except -1
    cdef object _token(self, const lib.parakeet_token_data * d)
