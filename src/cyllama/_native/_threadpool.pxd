from cyllama._native._handle cimport Handle
from cyllama._native.libggml cimport ggml_threadpool_t


cdef class ThreadPool(Handle):
    cdef ggml_threadpool_t _ptr
    cdef readonly int n_threads
