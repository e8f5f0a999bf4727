"""Thread pools with CPU affinity and priority."""

cimport cython
from cyllama._native cimport libggml as ggml
from cyllama._native._handle cimport Handle, check_range

from cyllama._native import _core

ctypedef ggml.ggml_threadpool_t (*pool_new_t)(ggml.ggml_threadpool_params * params) noexcept nogil
ctypedef void (*pool_free_t)(ggml.ggml_threadpool_t pool) noexcept nogil


@cython.no_gc_clear  # freeing needs the fields, the parent above all
cdef class ThreadPool(Handle):
    """Threads to compute with, for :meth:`LlamaContext.attach_threadpool`.

    Without one, a context uses the threads of the process, which is the best choice in most cases.

    Parameters
    ----------
    n_threads : int
        1 to 512.
    cpus : sequence of int, optional
        CPUs that the threads may run on; default: all that the process may use.
    strict_cpu : bool
        One CPU for each thread.
    priority : int
        -1 (low) to 3 (real time); more than 0 needs privileges.
    poll : int
        0 (sleep at once) to 100 (spin long) while waiting for work.

    Notes
    -----
    Source: ``ggml_threadpool_new``, ggml-cpu.h.
    """

    def __cinit__(self, n_threads, *, cpus=None, strict_cpu=False, priority=0, poll=0):
        cdef ggml.ggml_threadpool_params c_params
        check_range(n_threads, "n_threads", 1, 512)
        check_range(priority, "priority", -1, 3)
        check_range(poll, "poll", 0, 100)
        cdef int c_n = n_threads
        ggml.ggml_threadpool_params_init(&c_params, c_n)
        for cpu in cpus or ():
            check_range(cpu, "cpus", 0, ggml.GGML_MAX_N_THREADS - 1)
            c_params.cpumask[cpu] = True
        c_params.strict_cpu = strict_cpu
        c_params.prio = <ggml.ggml_sched_priority> <int> priority
        c_params.poll = poll
        cdef pool_new_t create = <pool_new_t> <void *> <size_t> _core.cpu_function("ggml_threadpool_new")
        with nogil:
            self._ptr = create(&c_params)
        if self._ptr == NULL:
            raise MemoryError("cannot make the thread pool")
        self.n_threads = n_threads
        self._opened("ThreadPool", None)

    def __init__(self, n_threads: int, *, cpus: list | None = None, strict_cpu: bool = False, priority: int = 0,
                 poll: int = 0) -> None:
        pass

    def __dealloc__(self):
        self._dispose()

    cdef int _release(self) noexcept:
        cdef pool_free_t free = <pool_free_t> <void *> <size_t> _core.cpu_function("ggml_threadpool_free")
        cdef ggml.ggml_threadpool_t pool = self._ptr
        self._ptr = NULL
        with nogil:
            free(pool)
        return 0
