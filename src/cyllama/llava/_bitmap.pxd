from cyllama._native._handle cimport Handle
from cyllama.llava cimport libmtmd as lib


cdef class Bitmap(Handle):
    cdef lib.mtmd_bitmap * _ptr
    cdef lib.mtmd_helper_video * _video     # of a video that was read from bytes; freed with the bitmap
    cdef readonly bint mergeable
    cdef readonly bint is_lazy
    cdef object _give                       # the function of a lazy bitmap
    cdef object _lazy_error                 # exception of the callback
    cdef bint _accepts_images, _accepts_audio   # of the projector of a lazy bitmap

    cdef int _take(self, lib.mtmd_bitmap * c_bitmap, Handle parent) except -1
    cdef int _lend(self) except -1
    cdef int _return(self) except -1
    cdef lib.mtmd_bitmap * _copy(self) except NULL


cdef Bitmap new_bitmap(lib.mtmd_bitmap * c_bitmap, Handle parent)
cdef lib.mtmd_helper_video_init_params video_options(object params, list keep) except *
