# whisper.h: what is used of it.
from cyllama._native.libggml cimport ggml_log_callback


cdef extern from "whisper.h" nogil:
    const char * whisper_version()
    const char * whisper_print_system_info()
    void whisper_log_set(ggml_log_callback log_callback, void * user_data)
