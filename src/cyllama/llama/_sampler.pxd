from cyllama._native._handle cimport Handle
from cyllama.llama cimport libllama as lib


cdef class LlamaSampler(Handle):
    cdef lib.llama_sampler * _ptr
    cdef readonly object params
    cdef bint _selecting        # the chain as it is has been seen to select a token
    cdef list _kept             # vocabularies and Python samplers that the chain uses
    cdef readonly object _custom   # Python samplers in the chain

    cdef int _add(self, lib.llama_sampler * sampler, str what) except -1
    cdef int _raise_custom(self) except -1
    cdef int _selects(self) except -1
