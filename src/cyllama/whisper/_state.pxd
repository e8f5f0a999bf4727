from cyllama._native._handle cimport Handle
from cyllama.whisper cimport libwhisper as lib
from cyllama.whisper._model cimport WhisperContext


cdef class WhisperState(Handle):
    cdef lib.whisper_state * _ptr
    cdef readonly WhisperContext context
    cdef unsigned long _callback_thread
    cdef bint _has_mel
    cdef bint _encoded
    cdef int _n_decoded
    cdef int _n_last

    cdef int _check_results(self) except -1
    cdef int _check_segment(self, object i) except -1
    cdef int _check_token(self, object i, object j) except -1
