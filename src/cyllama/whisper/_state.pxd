from cyllama.whisper cimport libwhisper as lib
from cyllama.whisper._base cimport BaseState
from cyllama.whisper._model cimport WhisperContext


cdef class WhisperState(BaseState):
    cdef lib.whisper_state * _ptr
    cdef readonly WhisperContext context
    cdef bint _encoded
    cdef int _n_decoded
    cdef int _n_last
