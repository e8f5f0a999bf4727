# shim_model.hpp
from cyllama._native.libexceptions cimport translate_exception
from cyllama.llama cimport libllama as lib


cdef extern from "shim_model.hpp" namespace "cyllama" nogil:
    bint has_reordered_weights(const lib.llama_model * model) except +translate_exception
