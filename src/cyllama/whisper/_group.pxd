from cyllama._native._handle cimport Handle
from cyllama.whisper cimport libwhisper as lib
from cyllama.whisper._model cimport WhisperContext


cdef class WhisperGroup(Handle):
    cdef lib.whisper_group * _ptr
    cdef readonly WhisperContext context
    cdef readonly int n_states

    cdef int _check_room(self, WhisperContext context) except -1
