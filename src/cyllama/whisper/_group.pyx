"""Groups of states that decode together."""

cimport cython

from cyllama._native._core cimport engine_error, start_call
from cyllama._native._handle cimport Handle, check_range
from cyllama.whisper cimport libwhisper as lib
from cyllama.whisper._model cimport WhisperContext

from cyllama.errors import OutOfMemoryError

MAX_STATES = 256


@cython.no_gc_clear  # freeing needs the fields, the parent above all
cdef class WhisperGroup(Handle):
    """States that decode together: the weights of the decoder are read once for all of them.

    Parameters
    ----------
    context : WhisperContext
        The model. It stays open as long as the group.
    n_states : int
        Maximum number of open states of the group.

    Raises
    ------
    ValueError
        `n_states` is out of range.

    Notes
    -----
    States join with ``WhisperState(context, group)``. Each runs :meth:`WhisperState.full` in a thread of its own: the
    decoder waits until every state of the group that is in such a call needs it. The logits are those of a state alone
    within rounding; beam search draws its candidates at random, so rounding can change its text. A callback of such a
    call must not wait for another state of the group.

    Thread safety: the states may be made and used in several threads. Source: ``whisper_group_init``, whisper.h
    (patched).
    """

    def __cinit__(self, WhisperContext context not None, n_states):
        check_range(n_states, "n_states", 1, MAX_STATES)
        context._check_weights()
        self.context = context
        self.n_states = n_states
        start_call()
        context._hold()
        try:
            with nogil:
                self._ptr = lib.whisper_group_init(context._ptr, self.n_states)
        finally:
            context._unhold()
        if self._ptr == NULL:
            raise engine_error(OutOfMemoryError, "cannot make a group of states", "whisper", "whisper_group_init", None)
        self._opened("WhisperGroup", context)

    def __init__(self, context: WhisperContext, n_states: int) -> None:
        pass

    def __dealloc__(self):
        self._dispose()

    cdef int _release(self) noexcept:
        cdef lib.whisper_group * c_group = self._ptr
        self._ptr = NULL
        with nogil:
            lib.whisper_group_free(c_group)
        return 0

    cdef int _check_room(self, WhisperContext context) except -1:
        """Check that a state of `context` can join."""
        self._check()
        if self.context is not context:
            raise ValueError("the group is one of another context")
        if self._n_children >= self.n_states:
            raise ValueError(f"the group has {self.n_states} open states already")
        return 0
