from cyllama._native._handle cimport CallState
from cyllama.sd cimport libsd as lib
from cyllama.sd.libshim cimport call_hooks


cdef class EngineCall(CallState):
    cdef call_hooks hooks
    cdef object _preview
    cdef object _tiles
    cdef int _interval
    cdef int _steps

    cdef int begin(self) except -1
    cdef int end(self) noexcept
    cdef int bind_preview(self, object preview, object mode, object interval, object denoised, object noisy) except -1
    cdef int bind_tiles(self, object tiles) except -1
    cdef bint stopped(self) noexcept
    cdef bint on_progress(self, int step, int steps, float seconds) noexcept nogil
    cdef bint on_tiles(self, int tile, int tiles, float seconds) noexcept nogil
    cdef int on_preview(self, int step, int count, lib.sd_image_t * frames, bint is_noisy) noexcept nogil
    cdef bint _on_progress_gil(self, int step, int steps, float seconds) noexcept
    cdef bint _call_gil(self, object callback, int step, int steps, float seconds) noexcept
    cdef int _on_preview_gil(self, int step, int count, lib.sd_image_t * frames, bint is_noisy) noexcept


cdef object copy_image(lib.sd_image_t * image)
cdef list take_images(lib.sd_image_t * images, int count)
