from cyllama._native._exit cimport RunningCall


cdef class Handle:
    cdef Handle _parent          # kept alive by its children
    cdef str _name               # for messages, e.g. "LlamaContext"
    cdef int _n_children
    cdef unsigned long _generation
    cdef bint _open
    cdef bint _busy
    cdef bint _broken

    cdef int _opened(self, str name, Handle parent) except -1
    cdef int _check(self) except -1
    cdef int _begin(self) except -1
    cdef int _end(self) noexcept
    cdef int _idle(self) except -1
    cdef int _hold(self) except -1
    cdef int _unhold(self) noexcept
    cdef int _release(self) noexcept
    cdef int _dispose(self) noexcept
    cdef void * _address(self) noexcept
    cdef int _failed(self, object error) except -1


cdef class CallState(RunningCall):
    cdef readonly object error
    cdef object _cancel
    cdef object _callback
    cdef bint _polls
    cdef bint _stop
    cdef bint _cancelled
    cdef double _next_poll

    cdef bint _stopped(self) noexcept nogil
    cdef bint poll(self) noexcept nogil
    cdef bint progress(self, float value) noexcept nogil
    cdef bint _poll_gil(self) noexcept
    cdef bint _progress_gil(self, float value) noexcept
    cdef int finish(self) except -1


cdef bint poll_call(void * state) noexcept nogil
cdef bint progress_call(float value, void * state) noexcept nogil

cdef bytes path_bytes(object path, str what)
cdef long long integer_of(object value, str what) except? -1
cdef int check_index(long long index, str what, long long count) except -1
cdef int check_range(object value, str what, long long low, long long high) except -1
