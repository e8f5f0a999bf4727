"""The end of the interpreter: stop the native calls of other threads and wait for them.

When the interpreter is finalized, CPython ends every daemon thread that asks for the GIL by unwinding its stack. The
process aborts if that stack holds a callback of an engine. A thread that still computes while the libraries are
unloaded crashes. So an exit handler stops the calls, waits until they have returned, and closes the engines that have
native threads of their own.
"""

import atexit
import os
import threading
import time
import weakref

from libcpp.atomic cimport atomic

from cyllama._native cimport libnative as lib

WAIT_SECONDS = 30.0
"""How long the exit handler waits for a call that does not stop, such as one in a callback of the user."""

cdef atomic[int] ending
cdef unsigned long main_thread = threading.main_thread().ident
cdef long n_running = 0  # native calls of other threads; the GIL protects it

_open = weakref.WeakSet()


def _after_fork() -> None:
    global main_thread, n_running
    main_thread = threading.main_thread().ident
    n_running = 0  # the child has no other threads
    _open.clear()  # and no engines


os.register_at_fork(after_in_child=_after_fork)


cdef bint in_main_thread() noexcept nogil:
    """Return whether this is the thread that handles signals and runs the exit handlers."""
    return lib.PyThread_get_thread_ident() == main_thread


cdef bint is_ending() noexcept nogil:
    """Return whether the interpreter ends and this thread must neither compute nor take the GIL.

    The main thread may: it runs the exit handlers.
    """
    return ending.load() != 0 and not in_main_thread()


cdef int raise_at_end() except -1:
    """End this thread if the interpreter ends; `threading` ignores SystemExit."""
    if is_ending():
        raise SystemExit("the interpreter is shutting down")
    return 0


cdef int enter_call() except -1:
    """Count a native call of this thread; `leave_call`, in the same thread, ends it."""
    global n_running
    raise_at_end()
    if not in_main_thread():
        n_running += 1
    return 0


cdef int leave_call() noexcept:
    global n_running
    if not in_main_thread():
        n_running -= 1
    return 0


cdef class RunningCall:
    """A native call that no handle counts; it ends when the object is freed, in the thread that made it."""

    def __cinit__(self, *args, **kwargs):
        enter_call()

    def __dealloc__(self):
        leave_call()


def close_at_exit(engine: object) -> None:
    """Close an object that has native threads of its own when the interpreter ends, if it is still open then."""
    _open.add(engine)


@atexit.register
def _stop_calls() -> None:
    ending.store(1)
    end = time.monotonic() + WAIT_SECONDS
    try:
        while n_running > 0 and time.monotonic() < end:
            time.sleep(0.002)
    finally:
        if n_running > 0:
            lib.skip_destructors()
    if n_running == 0:
        for engine in list(_open):
            engine.close()
