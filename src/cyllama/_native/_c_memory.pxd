cdef class CMemory:
    cdef list _keep
    cdef list _addresses

    cdef void * alloc(self, size_t count, size_t size) except NULL
    cdef const char * text(self, object value) except NULL
    cdef int * ints(self, object values) except NULL
    cdef float * floats(self, object values) except NULL
    cdef int keep(self, object value) except -1
