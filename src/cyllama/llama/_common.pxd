from cyllama.llama cimport libcommon as lib


cdef class CommonParams:
    cdef lib.common_params _params
    cdef str _grammar

    cdef object _get(self, str path)
    cdef int _set(self, str path, object value) except -1
