from cyllama._native._handle cimport CallState
from cyllama.whisper.libmodel cimport check_function, model_source, stop_function


cdef class ModelSource:
    """Reads a `ModelFile` for C."""

    cdef model_source * ptr
    cdef readonly str what
    cdef object _model

    cdef int check(self, check_function check, stop_function stop, CallState state, str function) except -1
