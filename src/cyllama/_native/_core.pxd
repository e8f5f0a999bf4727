from cyllama._native.libggml cimport ggml_log_level

cdef void log_hook(ggml_log_level level, const char * text, void * engine) noexcept nogil
cdef int start_call() except -1
cdef object engine_error(type kind, str message, str engine, str function, object code)
