# The C++ shims of this folder.
from libcpp cimport bool
from libcpp.string cimport string

from cyllama._native.libexceptions cimport translate_exception
from cyllama._native.libggml cimport ggml_log_level


cdef extern from "shim_native.hpp" namespace "cyllama" nogil:
    cdef cppclass log_line:
        string text
        ggml_log_level level
    bool log_append(ggml_log_level level, const char * text, log_line & line)
    void log_clear()
    size_t log_size()
    string log_get(size_t i) except +
    void install_abort_callback()
    void provoke_assertion() except +translate_exception
    void provoke_assertion_in_graph(int n_threads, int ith) except +translate_exception
    double now()
    string load_error(const char * path) except +
    void skip_destructors()
    string file_of_address(void * address) except +


cdef extern from * nogil:
    """
    #include "shim_native.hpp"
    static inline void set_log_threshold(int level) { cyllama::log_threshold().store(level); }
    """
    void set_log_threshold(int level)


cdef extern from "Python.h" nogil:
    unsigned long PyThread_get_thread_ident()  # cpython.pythread declares that it needs the GIL
