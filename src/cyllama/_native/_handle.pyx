"""Base classes of handles and of long native calls."""

import os

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_CheckExact
from cpython.number cimport PyIndex_Check, PyNumber_Index

from cyllama._native cimport libnative as lib
from cyllama._native._exit cimport RunningCall, enter_call, in_main_thread, is_ending, leave_call, raise_at_end

from cyllama._cancel import POLL_SECONDS, check_cancel
from cyllama.errors import CancelledError, ClosedError, InUseError, UnsupportedError

# Interval in which a native call takes the GIL to check Ctrl-C and `cancel`, in seconds.
cdef double POLL_INTERVAL = POLL_SECONDS

cdef unsigned long fork_generation = 0


def _after_fork() -> None:
    global fork_generation
    fork_generation += 1


os.register_at_fork(after_in_child=_after_fork)


@cython.no_gc_clear  # a child is freed while it still has its parent
cdef class Handle:
    """A native object: freed once, never used after it is closed, by one thread at a time.

    Thread safety: a handle raises InUseError in a second thread while a call is running.
    """

    def __cinit__(self, *args, **kwargs):
        self._open = False
        self._generation = fork_generation

    cdef int _opened(self, str name, Handle parent) except -1:
        """Mark the handle as open; `parent` stays open at least as long."""
        self._name = name
        self._parent = parent
        if parent is not None:
            parent._n_children += 1
        self._open = True
        return 0

    cdef int _check(self) except -1:
        if not self._open:
            raise ClosedError(f"{type(self).__name__} is closed")
        if self._generation != fork_generation:
            raise UnsupportedError(
                f"{type(self).__name__} was made before this process was forked; load it again in the child")
        if self._broken:
            raise InUseError(
                f"{type(self).__name__} is broken by a failed assertion of the engine and can only be closed")
        return 0

    cdef int _idle(self) except -1:
        """Check that the handle is open and that no call is running on it."""
        self._check()
        if self._busy:
            raise InUseError(f"{type(self).__name__} is in use by another call; a handle serves one thread at a time")
        return 0

    cdef int _begin(self) except -1:
        """Take the handle for one call; `_end` gives it back."""
        self._idle()
        enter_call()
        self._busy = True
        return 0

    cdef int _end(self) noexcept:
        self._busy = False
        leave_call()
        return 0

    cdef int _hold(self) except -1:
        """Keep the handle open during a native call that several threads may make at once; `_unhold` ends it.

        A constructor holds the parent: until the child is there, nothing else keeps the parent open.
        """
        self._check()
        enter_call()
        self._n_children += 1
        return 0

    cdef int _unhold(self) noexcept:
        self._n_children -= 1
        leave_call()
        return 0

    cdef int _release(self) noexcept:
        """Free the native object; called once, with the GIL held."""
        return 0

    cdef int _dispose(self) noexcept:
        if not self._open:
            return 0
        self._open = False
        if self._generation == fork_generation:
            self._release()
        if self._parent is not None:
            self._parent._n_children -= 1
        return 0

    cdef void * _address(self) noexcept:
        """Return the native object, for classes that cannot import this one."""
        return NULL

    cdef int _failed(self, object error) except -1:
        """Record an EngineError of a call on this handle: after a failed assertion only close() is possible."""
        if error.aborted:
            self._broken = True
        return 0

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return not self._open

    def close(self) -> None:
        """Free the native object. A second call does nothing.

        Raises
        ------
        InUseError
            A call is running on it, or other handles made from it are still open.

        Notes
        -----
        Releases the GIL while freeing.
        """
        if not self._open:
            return
        if self._busy and self._generation == fork_generation:
            raise InUseError(f"{type(self).__name__} cannot be closed while a call is running on it")
        if self._n_children > 0 and self._generation == fork_generation:
            raise InUseError(
                f"{type(self).__name__} cannot be closed: {self._n_children} open object(s) depend on it")
        self._dispose()
        self._parent = None

    def __enter__(self):
        self._check()
        return self

    def __exit__(self, *exc_info):
        self.close()

    def __reduce__(self):
        raise TypeError(f"{type(self).__name__} cannot be pickled: it holds native memory")

    def __repr__(self) -> str:
        return f"<{type(self).__name__}{'' if self._open else ' (closed)'} at {id(self):#x}>"


cdef class CallState(RunningCall):
    """One long native call: its `cancel`, its Python callback, and the exception that Python code raised meanwhile."""

    def __cinit__(self, cancel=None, callback=None):
        if cancel is not None:
            check_cancel(cancel)
        if callback is not None and not callable(callback):
            raise TypeError(f"the callback is {callback!r}, expected a callable")
        self._cancel = cancel
        self._callback = callback
        self._polls = cancel is not None or in_main_thread()
        self._next_poll = lib.now() + POLL_INTERVAL
        if cancel is not None and cancel.is_set():
            self._stop = True
            self._cancelled = True

    cdef bint _stopped(self) noexcept nogil:
        """Return whether the call stops, without taking the GIL."""
        if is_ending():
            self._stop = True
        return self._stop

    cdef bint poll(self) noexcept nogil:
        """Return whether the call must stop. Cheap: it takes the GIL at most every 50 ms."""
        cdef double now
        if self._stopped():
            return True
        if not self._polls:
            return False
        now = lib.now()
        if now < self._next_poll:
            return False
        self._next_poll = now + POLL_INTERVAL
        with gil:
            return self._poll_gil()

    cdef bint progress(self, float value) noexcept nogil:
        """Report progress; return whether the call continues."""
        if self._stopped():
            return False
        with gil:
            return self._progress_gil(value)

    cdef bint _poll_gil(self) noexcept:
        try:
            if self._cancel is not None and self._cancel.is_set():
                self._cancelled = True
                self._stop = True
            self._stopped()
            PyErr_CheckSignals()
        except BaseException as e:
            self.error = e
            self._stop = True
        return self._stop

    cdef bint _progress_gil(self, float value) noexcept:
        try:
            if self._callback is not None and self._callback(value) is False:
                self._cancelled = True
                self._stop = True
        except BaseException as e:
            self.error = e
            self._stop = True
        self._poll_gil()
        return not self._stop

    cdef int finish(self) except -1:
        """Raise what stopped the call, if anything did."""
        if self.error is not None:
            error = self.error
            self.error = None
            raise error
        raise_at_end()
        if self._cancelled:
            raise CancelledError("the call was cancelled")
        return 0


cdef bint poll_call(void * state) noexcept nogil:
    return (<CallState> state).poll()


cdef bint progress_call(float value, void * state) noexcept nogil:
    return (<CallState> state).progress(value)


cdef bytes path_bytes(object path, str what):
    """Return the path as bytes for C; raise an error if the file does not exist or cannot be read.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError, TypeError, ValueError
    """
    try:
        text = os.fspath(path)
    except TypeError:
        raise TypeError(f"{what} is {path!r}, expected a path (str, bytes or os.PathLike)") from None
    raw = os.fsencode(text)
    if b"\0" in raw:
        raise ValueError(f"{what} is {text!r}, a path cannot contain a null character")
    if not raw:
        raise FileNotFoundError(f"{what} is an empty path")
    if os.path.isdir(raw):
        raise IsADirectoryError(f"{what} is {text!r}, a directory, expected a file")
    with open(raw, "rb"):
        pass  # FileNotFoundError, PermissionError with the path
    return raw


cdef long long integer_of(object value, str what) except? -1:
    """Return an integer as a C integer, limited to its range; no Python code runs for an `int`."""
    cdef int overflow = 0
    cdef long long number
    if isinstance(value, bool) or not PyIndex_Check(value):
        raise TypeError(f"{what} is {value!r}, expected an integer")
    number = PyLong_AsLongLongAndOverflow(PyNumber_Index(value), &overflow)
    return number if overflow == 0 else (<long long> 1 << 62) * overflow


cdef int check_index(long long index, str what, long long count) except -1:
    """Check that `index` is in [0, count)."""
    if not 0 <= index < count:
        expected = f"0 to {count - 1}" if count else "no index, as there is nothing to read"
        raise IndexError(f"{what} is {index}, expected {expected}")
    return 0


cdef int check_range(object value, str what, long long low, long long high) except -1:
    """Check that `value` is an integer in [low, high]."""
    cdef int overflow = 0
    cdef long long number
    if not PyLong_CheckExact(value):
        if isinstance(value, bool) or not PyIndex_Check(value):
            raise TypeError(f"{what} is {value!r}, expected an integer")
        value = PyNumber_Index(value)
    number = PyLong_AsLongLongAndOverflow(value, &overflow)
    if overflow or not low <= number <= high:
        raise ValueError(f"{what} is {value}, expected {low} to {high}")
    return 0
