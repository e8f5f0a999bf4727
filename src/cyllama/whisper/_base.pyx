"""What the states of Whisper and Parakeet models share: checks of indices, and callbacks."""

cimport cython
from cpython.pythread cimport PyThread_get_thread_ident
from libcpp cimport bool as cbool

from cyllama._native._exit cimport is_ending
from cyllama._native._handle cimport Handle, check_index, integer_of

from cyllama.errors import InUseError


@cython.no_gc_clear  # freeing needs the parent
cdef class BaseState(Handle):
    """Base of `WhisperState` and `ParakeetState`: the checks before results are read."""

    cdef int _count_segments(self) noexcept:
        return 0

    cdef int _count_tokens(self, int i_segment) noexcept:
        return 0

    cdef int _check_results(self) except -1:
        """Allow reading results while no call runs, and in the callbacks of a running call."""
        self._check()
        if self._busy and self._callback_thread != <unsigned long> PyThread_get_thread_ident():
            raise InUseError(f"{self._name} is in use by another call; its results can be read in "
                             "new_segment_callback only")
        return 0

    cdef int _segment(self, object i_segment) except -1:
        """Check the index of a segment and return it. Converting comes first: it may run Python code."""
        cdef long long i = integer_of(i_segment, "i_segment")
        self._check_results()
        check_index(i, "i_segment", self._count_segments())
        return <int> i

    cdef int _token_of(self, object i_segment, object i_token, int * segment) except -1:
        """Check the indices of a segment and of a token in it; return both."""
        cdef long long j = integer_of(i_token, "i_token")
        segment[0] = self._segment(i_segment)
        check_index(j, "i_token", self._count_tokens(segment[0]))
        return <int> j


cdef class Callbacks:
    """The Python callbacks of one call, and its `CallState`.

    ``ended`` is set when ``encoder_begin`` returned False.
    """

    cdef int fail(self, object error) noexcept:
        """Keep the first exception of a callback, and stop the call."""
        if self.state.error is None:
            self.state.error = error
        self.state._stop = True
        return 0


cdef void call_new_segment(int n_new, void * callbacks) noexcept nogil:
    if not is_ending():
        _new_segment_gil(n_new, callbacks)


cdef void _new_segment_gil(int n_new, void * callbacks) noexcept with gil:
    cdef Callbacks call = <Callbacks> callbacks
    cdef int n
    if call.state._stop:
        return
    call.owner._callback_thread = PyThread_get_thread_ident()
    try:
        n = call.owner._count_segments()
        call.new_segment(n - n_new, n)
    except BaseException as e:
        call.fail(e)
    finally:
        call.owner._callback_thread = 0


cdef void call_progress(int percent, void * callbacks) noexcept nogil:
    if not is_ending():
        _progress_gil(percent, callbacks)


cdef void _progress_gil(int percent, void * callbacks) noexcept with gil:
    (<Callbacks> callbacks).state.progress(min(1.0, percent / 100.0))


cdef cbool call_encoder_begin(void * callbacks) noexcept nogil:
    return not is_ending() and _encoder_begin_gil(callbacks)


cdef cbool _encoder_begin_gil(void * callbacks) noexcept with gil:
    cdef Callbacks call = <Callbacks> callbacks
    if call.state._poll_gil():
        return False
    if call.encoder_begin is None:
        return True
    try:
        call.ended = call.encoder_begin() is False
        return not call.ended
    except BaseException as e:
        call.fail(e)
        return False
