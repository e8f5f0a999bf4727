from libc.stdio cimport FILE


cdef class CFile:
    cdef FILE * ptr
