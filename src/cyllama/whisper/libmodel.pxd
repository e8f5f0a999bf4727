# shim_model.hpp
from libc.stdint cimport uint64_t
from libcpp cimport bool

from cyllama._native.libexceptions cimport translate_exception
from cyllama.whisper.libwhisper cimport whisper_model_loader


cdef extern from "shim_model.hpp" namespace "cyllama" nogil:
    cdef cppclass model_source:
        model_source(const void * data, uint64_t size) except +
        model_source(int fd, uint64_t start, uint64_t size) except +
        void set_stop(bool (* function)(void *) noexcept nogil, void * argument)
        whisper_model_loader loader()

    bool check_whisper_model(model_source & source) except +translate_exception
    void check_vad_model(model_source & source) except +translate_exception
