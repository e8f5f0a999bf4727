# shim_model.hpp
from libc.stdint cimport uint64_t
from libcpp cimport bool

from cyllama._native.libexceptions cimport translate_exception
from cyllama.whisper.libwhisper cimport whisper_model_loader


cdef extern from "shim_model.hpp" namespace "cyllama" nogil:
    ctypedef bool (* stop_function)(void *) noexcept nogil
    cdef cppclass model_source:
        pass
    ctypedef bool (* check_function)(model_source & source) except +translate_exception nogil

    model_source * source_in_memory(const void * data, uint64_t size) except +translate_exception
    model_source * source_in_file(int fd, uint64_t start, uint64_t size) except +translate_exception
    void stop_source(model_source & source, stop_function function, void * argument) noexcept
    whisper_model_loader loader_of(model_source & source) noexcept
    bool check_whisper_model(model_source & source) except +translate_exception
    bool check_vad_model(model_source & source) except +translate_exception
