from cyllama.whisper.libmodel cimport model_source


cdef class ModelSource:
    """Reads a `ModelFile` for C."""

    cdef model_source * ptr
    cdef readonly str what
    cdef object _model
