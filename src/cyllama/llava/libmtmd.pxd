# mtmd.h, mtmd-helper.h: what is used of them.
from cyllama._native.libggml cimport ggml_log_callback


cdef extern from "mtmd.h" nogil:
    const char * mtmd_default_marker()


cdef extern from "mtmd-helper.h" nogil:
    void mtmd_helper_log_set(ggml_log_callback log_callback, void * user_data)
