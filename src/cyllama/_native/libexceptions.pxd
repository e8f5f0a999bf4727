# How C++ exceptions become Python exceptions: `except +translate_exception`.
cdef extern from "shim_exceptions.hpp" namespace "cyllama":
    void translate_exception()
