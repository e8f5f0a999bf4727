cdef bint in_main_thread() noexcept nogil
cdef bint is_ending() noexcept nogil
cdef int enter_call() except -1
cdef int leave_call() noexcept
cdef int raise_at_end() except -1


cdef class RunningCall:
    pass
