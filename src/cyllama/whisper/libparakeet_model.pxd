# shim_parakeet.hpp
from libcpp cimport bool

from cyllama._native.libexceptions cimport translate_exception
from cyllama.whisper.libmodel cimport model_source
from cyllama.whisper.libparakeet cimport parakeet_model_loader


cdef extern from "shim_parakeet.hpp" namespace "cyllama" nogil:
    parakeet_model_loader parakeet_loader_of(model_source & source) noexcept
    bool check_parakeet_model(model_source & source) except +translate_exception
