from cyllama.llama cimport libllama as lib
from cyllama.llama._model cimport LlamaModel


cdef class LlamaVocab:
    cdef readonly LlamaModel model
    cdef const lib.llama_vocab * _ptr

    cdef int _check(self) except -1
    cdef int _check_typed(self) except -1
    cdef bytes _piece(self, int token, int lstrip, bint special)
