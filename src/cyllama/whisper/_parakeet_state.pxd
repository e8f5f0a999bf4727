from cyllama.whisper cimport libparakeet as lib
from cyllama.whisper._base cimport BaseState
from cyllama.whisper._parakeet cimport ParakeetContext


cdef class ParakeetState(BaseState):
    cdef lib.parakeet_state * _ptr
    cdef readonly ParakeetContext context

    cdef object _token(self, const lib.parakeet_token_data * d)
