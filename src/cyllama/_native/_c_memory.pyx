"""Memory that C structs point to."""

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free


@cython.no_gc_clear  # __dealloc__ frees the addresses in the list
cdef class CMemory:
    """Own what a C struct points to; must live as long as the struct is used."""

    def __cinit__(self):
        self._keep = []
        self._addresses = []

    cdef void * alloc(self, size_t count, size_t size) except NULL:
        """Return zeroed memory for `count` elements of `size` bytes."""
        cdef void * p = PyMem_Calloc(max(count, 1), size)
        if p == NULL:
            raise MemoryError()
        self._addresses.append(<size_t> p)
        return p

    cdef const char * text(self, object value) except NULL:
        """Return the characters of bytes, or of a string as UTF-8."""
        cdef bytes raw = value.encode() if isinstance(value, str) else value
        self._keep.append(raw)
        return raw

    cdef int * ints(self, object values) except NULL:
        """Return a sequence of integers as an array."""
        cdef int * c = <int *> self.alloc(len(values), sizeof(int))
        for i, value in enumerate(values):
            c[i] = value
        return c

    cdef float * floats(self, object values) except NULL:
        """Return a sequence of numbers as an array."""
        cdef float * c = <float *> self.alloc(len(values), sizeof(float))
        for i, value in enumerate(values):
            c[i] = value
        return c

    cdef int keep(self, object value) except -1:
        """Keep an object alive."""
        self._keep.append(value)
        return 0

    def __dealloc__(self):
        for address in self._addresses:
            PyMem_Free(<void *> <size_t> address)
