from cyllama._native._handle cimport Handle
from cyllama.llava cimport libmtmd as lib


cdef class InputChunk(Handle):
    cdef const lib.mtmd_input_chunk * _ptr
    cdef lib.mtmd_input_chunk * _own        # the same where this object frees it, else NULL
    cdef readonly object context            # the MtmdContext that made it; None when it was loaded
    cdef readonly bint is_placeholder

    cdef int _take(self, const lib.mtmd_input_chunk * c_chunk, lib.mtmd_input_chunk * c_own, object context,
                   Handle parent) except -1
    cdef const lib.mtmd_image_tokens * _image(self) except NULL


cdef class InputChunks(Handle):
    cdef lib.mtmd_input_chunks * _ptr
    cdef readonly object context            # the MtmdContext that made them
