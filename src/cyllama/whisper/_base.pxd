from libcpp cimport bool as cbool

from cyllama._native._handle cimport CallState, Handle


cdef class BaseState(Handle):
    """Base of `WhisperState` and `ParakeetState`: the checks before results are read."""

    cdef unsigned long _callback_thread
    cdef bint _has_mel

    cdef int _count_segments(self) noexcept
    cdef int _count_tokens(self, int i_segment) noexcept
    cdef int _check_results(self) except -1
    cdef int _segment(self, object i_segment) except -1
    cdef int _token_of(self, object i_segment, object i_token, int * segment) except -1


cdef class Callbacks:
    """The Python callbacks of one call, and its `CallState`."""

    cdef BaseState owner
    cdef CallState state
    cdef object new_segment
    cdef object encoder_begin
    cdef bint ended

    cdef int fail(self, object error) noexcept


cdef void call_new_segment(int n_new, void * callbacks) noexcept nogil
cdef void call_progress(int percent, void * callbacks) noexcept nogil
cdef cbool call_encoder_begin(void * callbacks) noexcept nogil
