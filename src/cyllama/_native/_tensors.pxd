from cyllama._native cimport libggml as ggml

cdef int ask_about_tensor(object callback, ggml.ggml_tensor * tensor, bint ask) except -1
